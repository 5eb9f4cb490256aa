"""Detects agents that flap between online and offline, so that not every change is reported."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

Status = Literal["online", "silent", "offline"]
"""online: the agent sends data; silent: it polls or logs but sends no data; offline: neither."""
FLAPPING_WINDOW: Final = timedelta(hours=1)
FLAPPING_CHANGES: Final = 6  # this many changes within the window are flapping
STEADY_AFTER: Final = timedelta(minutes=30)
"""Flapping ends after this time without a change."""


class StatusChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The times of the latest status changes, and whether the agent is flapping."""

    times: tuple[datetime, ...]
    flapping: bool


def after_change(before: Sequence[datetime], now: datetime, *, flapping: bool) -> StatusChanges:
    """Return the changes after one more at `now`: those of the last hour, at most `FLAPPING_CHANGES`."""
    times = tuple(time for time in (*before, now) if now - time < FLAPPING_WINDOW)[-FLAPPING_CHANGES:]
    return StatusChanges(times=times, flapping=flapping or len(times) >= FLAPPING_CHANGES)
