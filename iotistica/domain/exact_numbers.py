"""Numbers that a double does not give back as they were sent: serial numbers, counters beyond 2^53, `1.50`."""

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

DIGITS: Final = 4000  # characters of an integer; Python converts at most 4,300
_SAFE: Final = 15
"""Significant digits that a double always gives back (IEEE 754)."""
_STEP: Final = 4
_DIGITS: Final = bytes(ord("0") if c in b"0123456789." else ord(" ") for c in range(256))
_TINY: Final = re.compile(rb"[0-9][eE]-[0-9]{3}")
_SMALL: Final = 1e-300  # below this, a double has fewer digits


class SentNumber(float):
    """A number that is not what was sent; `sent` is its text."""

    __slots__ = ("sent",)
    sent: str


def may_lose_digits(document: bytes) -> bool:
    """Whether a JSON document has a number of so many digits that a double may not give it back."""
    # Every fourth character first: most documents end here, at a fifth of the cost of looking at all of them.
    sample = document[::_STEP].translate(_DIGITS)
    return b"0" * (_SAFE // _STEP + 1) in sample and b"0" * (_SAFE + 1) in document.translate(_DIGITS)


def is_tiny(number: float | None) -> bool:
    """Whether a double is so close to zero that it has fewer digits, or none."""
    return number is not None and -_SMALL < number < _SMALL


def may_lose_exponent(document: bytes) -> bool:
    """Whether a zero in a JSON document may have been sent as a number too small for a double, such as 1e-400."""
    return (b"e-" in document or b"E-" in document) and _TINY.search(document) is not None


def of_json(text: str) -> float:
    """Convert a JSON number that is not an integer; returns a `SentNumber` if the double is not what was sent."""
    number = float(text)
    if (len(text) <= _SAFE and _SMALL < abs(number) < math.inf) or repr(number) == text:
        return number
    try:
        sent = Decimal(text)
        if sent in (Decimal(repr(number)), Decimal(number)):  # the shortest text of the double, or all its digits
            return number
    except InvalidOperation:  # an exponent beyond those of Decimal
        pass
    kept = SentNumber(number)
    kept.sent = text
    return kept


def is_given_back(text: str, number: float) -> bool:
    """Whether text is how a finite number is written: `21.5`, `21.0` and `21`, but not `021`, `21.50` or `2e1`."""
    return text == repr(number) or (number.is_integer() and text == str(int(number)))


def sent_text(value: Any) -> str | None:
    """Return what was sent where the double of a decoded number does not give it back; None where it does."""
    if isinstance(value, SentNumber):
        return value.sent
    if isinstance(value, int):
        try:
            return None if float(value) == value else digits(value)
        except OverflowError:
            return digits(value)
    return None


def digits(value: int) -> str:
    """Return the digits of an integer, or how many there are if they are more than `DIGITS`."""
    try:
        text = str(value)
    except ValueError:
        return "an integer of many digits"
    return text if len(text) <= DIGITS else f"an integer of {len(text)} digits"
