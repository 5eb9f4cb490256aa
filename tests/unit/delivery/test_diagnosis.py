"""Why an agent is silent: each cause from what is known, the likeliest first."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.delivery.diagnosis import causes
from iotistica.domain.delivery.evidence import Evidence, PastEvent

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)


def event(kind: str, at: datetime, times: int = 1, **details: Any) -> PastEvent:
    return PastEvent(kind=kind, at=at, times=times, details=details)


def words(**facts: Any) -> list[str]:
    return [cause.cause for cause in causes(Evidence(now=NOW, **{"state": "active", **facts}))]


CAME = event("broker.connected", ago(hours=1), address="10.0.0.7")
LEFT = event("broker.left", ago(minutes=30), reason="has exceeded timeout")
SENDING = {"has_published": True, "readings_at": ago(seconds=3), "events": [CAME]}
UNREADABLE = event("message.refused", ago(minutes=5), 3, reason="unknown_topic", detail="nothing reads it")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"tenant_disabled": True, "events": [LEFT, CAME]}, ["tenant_disabled"]),
        ({"state": "revoked", "events": [LEFT, CAME]}, ["locked_out"]),
        ({"state": "retired", "replaced_by": "another"}, ["locked_out"]),
        ({"state": "new"}, ["not_registered"]),
        ({"state": "registered"}, ["not_registered"]),
        ({}, ["never_connected"]),
        ({"heard_at": ago(minutes=1)}, ["no_broker_connection"]),
        ({"events": [LEFT, CAME], "heard_at": ago(hours=1)}, ["disconnected"]),
        ({"events": [CAME], "heard_at": ago(hours=1)}, ["nothing_published"]),
        (
            {"events": [event("broker.let_in", ago(hours=1)), event("broker.refused", ago(hours=2))]},
            ["nothing_published"],
        ),
        ({"has_published": True, "heard_at": ago(hours=9)}, ["disconnected"]),
        (
            {"faults": ["endpoint plc: timeout"], "heard_at": ago(minutes=3)},
            ["devices_fail", "no_broker_connection"],
        ),
        ({"events": [UNREADABLE, CAME]}, ["messages_refused", "nothing_published"]),
        ({"events": [event("broker.refused", ago(minutes=1), 9), CAME]}, ["wrong_password", "nothing_published"]),
        ({"events": [CAME, event("broker.refused", ago(hours=2))]}, ["nothing_published"]),
        ({"events": [event("broker.denied", ago(minutes=1)), CAME]}, ["denied_topic", "nothing_published"]),
        (
            {
                "events": [event("broker.taken_over", ago(minutes=1), 40), CAME],
                "has_published": True,
                "readings_at": ago(minutes=1),
            },
            ["shared_identity"],
        ),
        (
            {
                "events": [event("broker.taken_over", ago(minutes=1), 1), CAME],
                "has_published": True,
                "readings_at": ago(minutes=1),
            },
            [],
        ),
        (
            {"events": [event("readings.rejected", ago(minutes=1), 7, reason="future"), CAME]},
            ["readings_rejected", "nothing_published"],
        ),
        (
            {
                "events": [event("clock.ahead", ago(minutes=1), seconds=7200)],
                "has_published": True,
                "readings_at": ago(minutes=2),
            },
            ["wrong_clock"],
        ),
        ({"waiting_seconds": 90.0, "events": [CAME]}, ["platform_behind", "nothing_published"]),
        ({"faults": ["endpoint plc: timeout"], "events": [CAME]}, ["devices_fail", "nothing_published"]),
        ({"has_published": True, "readings_at": ago(seconds=3), "events": [CAME]}, []),
        (
            {"has_published": True, "readings_at": ago(seconds=3), "events": [UNREADABLE, CAME]},
            ["messages_refused"],
        ),
        (
            {
                "has_published": True,
                "readings_at": ago(hours=3),
                "events": [CAME, event("message.refused", ago(hours=4))],
            },
            ["nothing_published"],
        ),
        (
            {
                "has_published": True,
                "readings_at": ago(seconds=3),
                "target_verdict": "polling_stopped",
                "target_reason": "No poll.",
            },
            ["target_not_applied"],
        ),
        ({**SENDING, "target_verdict": "not_fetched"}, []),
        ({**SENDING, "target_verdict": "not_reported", "fetched_at": ago(seconds=50)}, []),
        ({**SENDING, "target_verdict": "different", "fetched_at": ago(seconds=50)}, []),
        ({**SENDING, "target_verdict": "failing", "fetched_at": ago(seconds=50)}, ["target_not_applied"]),
        ({**SENDING, "target_verdict": "not_reported", "fetched_at": ago(seconds=350)}, ["target_not_applied"]),
        ({**SENDING, "target_verdict": "different", "fetched_at": ago(seconds=350)}, ["target_not_applied"]),
    ],
)
def test_the_likeliest_cause_is_first(facts: dict[str, Any], expected: list[str]) -> None:
    """What locks an agent out is told alone; an event that later data disproves is not told."""
    assert words(**facts) == expected


def test_each_cause_says_what_happened_and_what_to_do() -> None:
    """With the reason, how often and when; refused log-ins without a name are told to who never got in."""
    (first, _) = causes(Evidence(now=NOW, state="active", events=[UNREADABLE, CAME]))
    assert first.text == (
        "Messages arrive and cannot be read 3 times, the last time at 2026-11-27 11:55:00 UTC."
        " Reason: unknown_topic: nothing reads it"
    )
    assert "dead-letters list" in first.advice
    (never,) = causes(Evidence(now=NOW, state="active", refused_logins=12))
    assert "refused 12 log-ins" in never.text


KINDS = (
    "broker.connected",
    "broker.left",
    "broker.refused",
    "broker.denied",
    "broker.taken_over",
    "message.refused",
)
EVENTS = st.builds(
    event,
    st.sampled_from([*KINDS, "readings.rejected", "clock.ahead", "clock.behind"]),
    st.integers(0, 100_000).map(lambda seconds: ago(seconds=seconds)),
    st.integers(1, 1000),
)


@given(
    state=st.sampled_from(["new", "registered", "active", "revoked", "retired"]),
    data=st.none() | st.integers(0, 100_000),
    events=st.lists(EVENTS, max_size=12),
)
def test_an_agent_without_data_always_has_a_cause(state: str, data: int | None, events: list[PastEvent]) -> None:
    """Whatever is known, an agent that sends nothing gets an answer, and no cause twice."""
    ordered = sorted(events, key=lambda one: one.at, reverse=True)
    data_at = None if data is None else ago(seconds=data)
    found = words(state=state, readings_at=data_at, has_published=bool(data_at), heard_at=data_at, events=ordered)
    assert len(found) == len(set(found))
    if data_at is None or NOW - data_at > timedelta(minutes=10):
        assert found
