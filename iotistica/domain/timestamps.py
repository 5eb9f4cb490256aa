"""Parses the timestamps of agents into us since the epoch."""

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from iotistica.errors import InvalidMessage

LONGEST: Final = 64  # characters of a timestamp
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_SCALES: Final = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))  # below this: s, ms, us; else ns
_LAST: Final = 253_402_300_800_000_000  # us: the year 10000, which datetime cannot hold


def parse_us(stamp: Any) -> int:
    """Parse ISO 8601 text (UTC if it has no zone), or a number whose size tells whether it is s, ms, us or ns.

    Raises `InvalidMessage("bad_time")`.
    """
    if isinstance(stamp, str):
        if len(stamp) > LONGEST:
            raise InvalidMessage("bad_time", "too long")
        return _parse_iso(stamp)
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)):
        raise InvalidMessage("bad_time", type(stamp).__name__)
    if isinstance(stamp, float) and not math.isfinite(stamp):
        raise InvalidMessage("bad_time", repr(stamp))
    size = abs(stamp)
    scale = next((scale for bound, scale in _SCALES if size < bound), 0)
    us = round(stamp * scale) if scale else int(stamp) // 1000
    if not -_LAST < us < _LAST:
        raise InvalidMessage("bad_time", "out of range")
    return us


@lru_cache(maxsize=4096)  # the readings of one poll have the same text
def _parse_iso(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return (when - EPOCH) // _US
    except (ValueError, OverflowError):
        pass
    try:
        number = float(text)
    except ValueError:
        raise InvalidMessage("bad_time", text[:40]) from None
    return parse_us(number)
