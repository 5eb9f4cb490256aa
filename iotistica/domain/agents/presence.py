"""When a change of an agent's presence is worth telling: not while it comes and goes all the time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

Status = Literal["online", "silent", "offline"]
"""Sends data; polls or logs, and sends none; neither."""
WITHIN: Final = timedelta(hours=1)
MANY: Final = 6  # changes within that time are flapping
CALM: Final = timedelta(minutes=30)
"""Without a change, after which it is over."""


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """The times of the last changes, and whether they are too many."""

    times: tuple[datetime, ...]
    flapping: bool


def turned(before: Sequence[datetime], now: datetime, *, flapping: bool) -> Turns:
    """After another change: those of the last hour, at most `MANY`."""
    times = tuple(time for time in (*before, now) if now - time < WITHIN)[-MANY:]
    return Turns(times=times, flapping=flapping or len(times) >= MANY)


def is_calm(times: Sequence[datetime], now: datetime) -> bool:
    """Whether flapping is over."""
    return not times or now - times[-1] >= CALM
