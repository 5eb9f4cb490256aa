"""Log levels: words as loggers spell them, and the numbers of pino, bunyan and syslog."""

import math
import re
from typing import Any, Final

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "fatal")
"""Log levels by severity; a line is stored with its level's index in this tuple."""
DEFAULT: Final = LEVELS.index("info")
FIELDS: Final = ("level", "severity", "lvl", "levelname", "log.level", "loglevel", "priority", "PRIORITY")
"""The fields that can hold a level, the first that is present counts."""
_STEMS: Final = (
    ("trace", ("trace", "trc", "verbose", "vrb", "silly", "fine", "finer", "finest", "all", "v")),
    ("debug", ("debug", "dbg", "config", "d")),
    ("info", ("info", "inf", "information", "informational", "notice", "log", "ok", "i", "n")),
    ("warn", ("warn", "wrn", "warning", "w")),
    ("error", ("error", "err", "eror", "severe", "failure", "failed", "e")),
    (
        "fatal",
        (
            "fatal",
            "ftl",
            "critical",
            "crit",
            "alert",
            "emerg",
            "emergency",
            "panic",
            "dpanic",
            "crt",
            "f",
            "c",
            "a",
        ),
    ),
)
_BY_WORD: Final = {word: LEVELS.index(level) for level, words in _STEMS for word in words}
_SYSLOG: Final = (5, 5, 5, 4, 3, 2, 2, 1)
"""The level of each severity of syslog (RFC 5424, 6.2.1): emergency, alert, critical, error, warning, …"""
_NUMBER: Final = re.compile(r"\s*[-+]?\d{1,6}(?:\.\d*)?\s*", re.ASCII)
_PINO: Final = 10
"""The step of pino's and bunyan's levels: trace is 10, fatal 60."""


def level_of(value: Any) -> int:
    """Return the index of a level in `LEVELS`; an unknown level counts as info.

    Numbers up to 7 are syslog's; from 10 they are pino's, and a number between two levels belongs to the lower one.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, str):
        word = "".join(c for c in value[:64].lower() if c.isalnum())
        return _BY_WORD.get(word, _BY_WORD.get(word.rstrip("s"), DEFAULT))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return DEFAULT
    return _of_number(int(value))


def _of_number(number: int) -> int:
    if 0 <= number < len(_SYSLOG):
        return _SYSLOG[number]
    if number < _PINO:
        return DEFAULT
    return min(number // _PINO, len(LEVELS)) - 1
