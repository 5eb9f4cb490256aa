"""The texts of messages about invalid and unknown settings."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, get_args

LONGEST: Final = 100  # characters of a value in a message
_RULES: Final = (
    (r"Expected `\w+` <= (\S+)", "must be at most {}"),
    (r"Expected `\w+` >= (\S+)", "must be at least {}"),
    (r"Expected `\w+` > (\S+)", "must be more than {}"),
    (r"Expected `int`", "must be a whole number"),
    (r"Expected `float`", "must be a number"),
    (r"Expected `str` matching", "must be an e-mail address"),
    (r"Expected `str`", "must be a string"),
)
"""The errors of msgspec, and the texts that replace them."""


def explain(error: str, kind: Any, value: Any) -> str:
    """Return what is wrong with a setting, as a predicate.

    `error` is msgspec's text, `kind` the setting's annotation and `value` the invalid value, or None for a value
    that must not be shown. A value with a URL is never shown, since it can contain a password.
    """
    choices = [word for argument in get_args(kind)[:1] for word in get_args(argument)]
    texts = (text.format(*match.groups()) for rule, text in _RULES if (match := re.match(rule, error)))
    text = f"must be one of {', '.join(choices)}" if choices else next(texts, "is invalid")
    return text if value is None or "://" in str(value) else f"{text}; it is {str(value)[:LONGEST]}"


def hint(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question with the known name most similar to an unknown one, else how to list all settings."""
    close = get_close_matches(name, list(known), 1)
    return f"Did you mean {prefix}{close[0]}?" if close else "`iotistica config` lists all settings."
