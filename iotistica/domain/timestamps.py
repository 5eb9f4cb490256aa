"""Parses the timestamps of agents into us since the epoch."""

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from iotistica.domain import written_times
from iotistica.errors import InvalidMessage

LONGEST: Final = 96  # characters of a timestamp
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_SCALES: Final = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))  # below this: s, ms, us; else ns
_LAST: Final = 253_402_300_800_000_000  # us: the year 10000, which datetime cannot hold
_NUMBER: Final = re.compile(r"\s*(?:([-+]?\d+)|[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?|[-+]?\d+\.)\s*", re.ASCII)


def is_absent(stamp: Any) -> bool:
    """Whether a timestamp is null or blank text, as of a device whose clock is not set."""
    return stamp is None or (isinstance(stamp, str) and not stamp.strip())


def parse_us(stamp: Any) -> int:
    """Parse text (see `written_times`; UTC if it has no zone), or a number whose size tells s, ms, us or ns.

    Text of digits is a number, too, whatever date the digits could be. Raises `InvalidMessage("bad_time")`.
    """
    us = optional_us(stamp)
    if us is None:
        raise InvalidMessage("bad_time", "no time")
    return us


def optional_us(stamp: Any) -> int | None:
    """Parse as `parse_us` does; None for no time, see `is_absent`."""
    if isinstance(stamp, str):
        if len(stamp) > LONGEST:
            raise InvalidMessage("bad_time", "too long")
        return _parse_text(stamp)
    if stamp is None:
        return None
    if isinstance(stamp, datetime):  # MessagePack's own timestamp type
        return (stamp.replace(tzinfo=stamp.tzinfo or UTC) - EPOCH) // _US
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
def _parse_text(text: str) -> int | None:
    if text[10:11] != "T" and (number := _NUMBER.fullmatch(text)):
        return parse_us(int(number[1]) if number[1] else float(text))
    try:
        when = written_times.parse(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return (when - EPOCH) // _US
    except (ValueError, OverflowError):
        if not text.strip():
            return None
        raise InvalidMessage("bad_time", text[:40]) from None
