"""When a change of an agent's presence is worth telling: not while it comes and goes all the time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

Status = Literal["online", "silent", "offline"]
"""Sends data; polls or logs, and sends none; neither."""
FLAPPING_WINDOW: Final = timedelta(hours=1)
FLAPPING_CHANGES: Final = 6  # changes within that time are flapping
STEADY_AFTER: Final = timedelta(minutes=30)
"""Without a change, after which it is over."""


class StatusChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The times of the last changes, and whether they are too many."""

    times: tuple[datetime, ...]
    flapping: bool


def after_change(before: Sequence[datetime], now: datetime, *, flapping: bool) -> StatusChanges:
    """After another change: those of the last hour, at most `FLAPPING_CHANGES`."""
    times = tuple(time for time in (*before, now) if now - time < FLAPPING_WINDOW)[-FLAPPING_CHANGES:]
    return StatusChanges(times=times, flapping=flapping or len(times) >= FLAPPING_CHANGES)
