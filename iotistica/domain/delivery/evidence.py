"""What is known about an agent that does not send, from which the causes are told."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from iotistica.domain.control.explanation import QUIET_AFTER, Verdict

FRESH: Final = timedelta(minutes=10)
"""Data that is younger than this counts as being sent now."""
RECENT: Final = timedelta(days=1)
"""Older events of the broker say nothing about today."""
PARTLY: Final = timedelta(hours=1)
"""Of an agent that sends now, older events say nothing about now."""


class PastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The latest event of a kind on the agent's timeline, or one of several with different details."""

    kind: str
    at: datetime
    times: int
    details: dict[str, Any]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform knows about an agent and its messages; `events` are the newest first."""

    now: datetime
    state: str
    tenant_disabled: bool = False
    replaced_by: str | None = None
    readings_at: datetime | None = None
    """The newest time of a reading of a device within some hours; reports on the gateway itself do not count."""
    has_published: bool = False
    """Whether any reading of a device was ever stored."""
    heard_at: datetime | None = None
    """When anything last arrived: data, a poll, a report or logs."""
    polled_at: datetime | None = None
    reported_at: datetime | None = None
    fetched_at: datetime | None = None
    """When it fetched the target state that it is meant to run now."""
    events: Sequence[PastEvent] = ()
    faults: Sequence[str] = ()
    """Devices and services that the agent reports as failing."""
    target_verdict: Verdict = "nothing_wanted"
    target_reason: str = ""
    waiting_seconds: float = 0.0
    """How long the oldest message of the tenant has waited to be stored."""
    refused_logins: int = 0
    """Log-ins of anybody that the broker refused within about an hour, without naming the account."""

    def latest(self, kind: str) -> PastEvent | None:
        return next((event for event in self.events if event.kind == kind), None)

    def since_data(self, kind: str) -> list[PastEvent]:
        """Return the events of a kind within a day that the latest data does not disprove.

        Of an agent that sends now, those of the last hour: a part of what it sends is meant.
        """
        earliest = self.now - RECENT
        oldest = self.now - PARTLY if self.is_sending else max(earliest, self.readings_at or earliest)
        return [event for event in self.events if event.kind == kind and event.at >= oldest]

    @property
    def is_sending(self) -> bool:
        return self.readings_at is not None and self.now - self.readings_at < FRESH

    @property
    def is_applying(self) -> bool:
        """Whether it has fetched its target state so lately that it can still be about to run it."""
        return self.fetched_at is not None and self.now - self.fetched_at < QUIET_AFTER

    @property
    def connected(self) -> PastEvent | None:
        """The latest connection; a broker that authenticates over HTTP tells only whom it let in."""
        came = [event for kind in ("broker.connected", "broker.let_in") if (event := self.latest(kind))]
        return max(came, key=lambda event: event.at, default=None)

    @property
    def is_connected(self) -> bool:
        """Whether the last that the broker told of the agent is that it connected."""
        came, left = self.connected, self.latest("broker.left")
        return came is not None and (left is None or left.at < came.at)
