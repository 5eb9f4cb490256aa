"""The quality of a reading: good, bad, uncertain, stale or unknown."""

from typing import Any, Final

_WORDS: Final = {
    "good": "good",
    "ok": "good",
    "bad": "bad",
    "error": "bad",
    "not_connected": "bad",
    "uncertain": "uncertain",
    "stale": "stale",
    "unknown": "unknown",
}
_STATUS: Final = ("good", "uncertain", "bad", "bad")  # indexed by the top two bits of an OPC UA status code
_GOOD_CODES: Final = (0, 192)  # of OPC UA and of OPC DA
QUALITIES: Final = {**_WORDS, **{word.upper(): quality for word, quality in _WORDS.items()}, "Good": "good"}


def quality_of(value: Any) -> str | None:
    """Return the quality for text, a boolean or an OPC UA status code (OPC 10000-4, 7.39.1); None for no value."""
    if value is None:
        return None
    if isinstance(value, str):
        return QUALITIES.get(value) or _by_text(value)
    if isinstance(value, bool):
        return "good" if value else "bad"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return _STATUS[(value & 0xFFFFFFFF) >> 30]
    return "unknown"


def is_said_whole(value: Any) -> bool:
    """Whether the mapped quality says all that was sent; not so for `BadSensorFailure` and most status codes."""
    if isinstance(value, str):
        return not value or value.strip().lower() in _WORDS
    return value is None or isinstance(value, bool) or value in _GOOD_CODES


def _by_text(text: str) -> str:
    word = text[:64].strip().lower()
    for prefix in ("good", "bad", "uncertain"):  # OPC UA names such as GoodClamped and BadSensorFailure
        if word.startswith(prefix):
            return prefix
    if word[:24].isdecimal() and word.isascii():
        return _STATUS[(int(word[:24]) & 0xFFFFFFFF) >> 30]
    return _WORDS.get(word, "unknown")
