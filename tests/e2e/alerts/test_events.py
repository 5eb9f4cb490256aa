"""Events of agents: stored once, bound to the agent of the topic, and incidents from the anomalies among them."""

import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until


class Site:
    """A tenant with an owner and an agent that can publish."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.tenant = server.add_tenant(f"events {uuid4()}")
        self.owner: httpx.Client = server.login(self.tenant, "owner")
        self.agent = Device(server).join(key_for(self.owner))

    def publish(self, *events: dict[str, Any] | bytes, type_: str = "anomaly") -> None:
        with self.agent.connect() as client:
            for event in events:
                payload = event if isinstance(event, bytes) else json.dumps(event).encode()
                client.publish(f"{self.agent.topic}/events/{type_}", payload)

    def events(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.owner.get("/events", params=query).json()["events"]
        return found

    def incidents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.owner.get("/anomaly/incidents").json()["incidents"]
        return found


@pytest.fixture
def site(server: Served) -> Site:
    return Site(server)


def anomaly(**changed: Any) -> dict[str, Any]:
    """An anomaly as the original platform documents it."""
    now = int(time.time() * 1000)
    return {
        "msgId": str(uuid4()),
        "agentUuid": str(uuid4()),  # of somebody else: never believed
        "deviceName": "pump-7",
        "deviceType": "modbus",
        "metric": f"{uuid4()}_{uuid4()}_flow_rate",
        "timestampMs": now,
        "windowStartMs": now - 120_000,
        "windowEndMs": now,
        "observedValue": 48.2,
        "baseline": {"median": 12.6, "stdDev": 0.4, "sampleCount": 900, "method": "mad"},
        "anomalyScore": 0.93,
        "confidence": 0.88,
        "severity": "critical",
        "severityReason": "far beyond the usual range",
        "triggeredBy": ["mad", "zscore"],
        "suppressed": False,
        "expectedRange": [11.0, 14.0],
        "deviation": 34.2,
        "fingerprint": "sha-1",
        "cooldownSec": 300,
        "consecutiveCount": 4,
    } | changed


def test_an_anomaly_is_stored_once_and_opens_one_incident(site: Site) -> None:
    """Sent three times, and once more by another message: one event each, one incident that has seen both."""
    first = anomaly()
    site.publish(first, first, first)
    (event,) = until(site.events)
    assert event["agentUuid"] == site.agent.uuid
    assert event["metricName"] == "pump-7.flow_rate"
    assert (event["expectedLow"], event["expectedHigh"]) == (11.0, 14.0)
    assert event["baseline"]["method"] == "mad"
    assert event["content"] == {
        "deviceType": "modbus",
        "triggeredBy": ["mad", "zscore"],
        "deviation": 34.2,
        "consecutiveCount": 4,
    }
    site.publish(anomaly(), first)
    until(lambda: len(site.events()) == 2)
    (incident,) = until(site.incidents)
    assert (incident["severity"], incident["members"]) == ("critical", 1)
    details = site.owner.get(f"/anomaly/incidents/{incident['incidentId']}").json()["details"]
    assert [(member["metricName"], member["times"]) for member in details] == [("pump-7.flow_rate", 2)]
    assert details[0]["evidence"]["expected"] == {"low": 11.0, "high": 14.0}
    happenings = site.owner.get(f"/agents/{site.agent.uuid}/timeline", params={"kind": "event"}).json()[
        "happenings"
    ]
    assert [(row["kind"], row["times"]) for row in happenings] == [("event.anomaly", 2)]


def test_suppressed_old_and_harmless_events_wake_nobody(site: Site) -> None:
    """They are stored; suppressed ones are listed only if they are asked for."""
    hours_ago = int(time.time() * 1000) - 7_200_000
    site.publish(
        anomaly(suppressed=True, fingerprint="a"),
        anomaly(timestampMs=hours_ago, fingerprint="b"),
        anomaly(severity="info", fingerprint="c"),
    )
    site.publish({"message": "the door was opened", "timestamp": time.time()}, type_="door")
    until(lambda: len(site.events()) == 3)
    assert {event["type"] for event in site.events()} == {"anomaly", "door"}
    assert len(site.events(suppressed=True)) == 1
    assert [event["text"] for event in site.events(type="door")] == ["the door was opened"]
    assert len(site.events(severity="critical")) == 1
    assert site.incidents() == []


INVALID: list[tuple[bytes, str]] = [
    (b"{bad", ""),
    (b"[1]", "object"),
    (b'{"metric": "m", "fingerprint": "f"}', "timestampMs"),
    (b'{"metric": "m", "timestampMs": 1}', "fingerprint"),
    (b'{"timestampMs": 1, "fingerprint": "f"}', "metric"),
    (json.dumps(anomaly(severity="purple")).encode(), "severity"),
    (json.dumps(anomaly(anomalyScore=7)).encode(), "anomalyScore"),
    (json.dumps(anomaly(observedValue="much")).encode(), "observedValue"),
    (json.dumps(anomaly(expectedRange=[1])).encode(), "expectedRange"),
    (json.dumps(anomaly(timestampMs="soon")).encode(), "timestampMs"),
    (json.dumps(anomaly(baseline="none")).encode(), "baseline"),
    (json.dumps(anomaly(note="x" * 20_000)).encode(), "KiB"),
]
"""Messages that are no events, and what is said of each."""


def test_an_event_that_is_none_becomes_a_dead_letter_with_the_reason(site: Site) -> None:
    """The field at fault is named, and events beside it are stored."""
    site.publish(*(event for event, _ in INVALID), anomaly())
    letters = until(
        lambda: (
            len(found := site.owner.get("/ingestion/dead-letters").json()["deadLetters"]) == len(INVALID) and found
        )
    )
    for letter, (_, detail) in zip(letters, INVALID, strict=True):
        assert detail in letter["detail"]
    until(lambda: len(site.events()) == 1)


def test_anomaly_fields_of_readings_are_kept(site: Site) -> None:
    """As the agent sent them, beside the reading."""
    reading = {"metric": "m", "value": 1, "anomaly_score": 0.5, "anomaly_threshold": 0.7}
    site.owner.post("/readings", params={"agent": site.agent.uuid}, json={"readings": [reading]})
    (latest,) = until(lambda: site.owner.get(f"/readings/{site.agent.uuid}/latest").json()["readings"])
    assert (latest["anomaly_score"], latest["anomaly_threshold"]) == (0.5, 0.7)
