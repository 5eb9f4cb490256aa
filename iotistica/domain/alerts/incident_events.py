"""Incidents from anomalies that agents detect themselves: one for each fingerprint and series."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from iotistica.domain.alerts.events import ANOMALY, Event
from iotistica.domain.alerts.incidents import Cause, NewMember, Subject

RECENT: Final = timedelta(minutes=15)
"""An event that happened longer before it was received tells of the past, and opens nothing."""
QUIET: Final = timedelta(minutes=15), timedelta(hours=24)
"""How long no event must follow until an incident is over, at least and at most."""
QUIET_COOLDOWNS: Final = 3
"""The same in cooldowns of the agent, which tells of what lasts once in each."""


def opens_incident(event: Event, received: datetime) -> bool:
    """Whether an event is an anomaly of now that somebody should look at."""
    return (
        event.type == ANOMALY
        and not event.is_suppressed
        and event.severity != "info"
        and event.fingerprint is not None
        and abs(received - event.time) <= RECENT
    )


def member_of(agent: UUID, event: Event, received: datetime) -> tuple[Cause, NewMember]:
    """Return the cause and the member of the incident that an anomaly opens or continues."""
    cause = Cause(
        key=f"event {event.fingerprint}",
        rule_id=None,
        title=f"Anomaly in {event.metric_name}",
        severity=event.severity,
        grouping="series",
    )
    quiet = timedelta(seconds=min(event.cooldown_seconds or 0.0, QUIET[1].total_seconds())) * QUIET_COOLDOWNS
    details = {
        "at": event.time,
        "text": event.text,
        "score": event.score,
        "confidence": event.confidence,
        "expected": {"low": event.expected_low, "high": event.expected_high},
        "baseline": event.baseline,
        "windowStart": event.window_start,
        "windowEnd": event.window_end,
    }
    member = NewMember(
        subject=Subject(agent, event.metric_name or ""),
        since=event.window_start or event.time,
        value=event.value,
        details={name: value for name, value in details.items() if value is not None},
        ends_at=received + min(max(quiet, QUIET[0]), QUIET[1]),
    )
    return cause, member
