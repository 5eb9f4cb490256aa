"""Tags of agents, and selectors that match agents by their tags: `site=berlin,line in (1,2),!spare`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from iotistica.domain.documents import strip_nul
from iotistica.domain.names import composed
from iotistica.errors import Invalid

KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
VALUE_LENGTH: Final = 200  # characters
TAGS_LIMIT: Final = 50  # tags of an agent
TERMS_LIMIT: Final = 20  # terms of a selector
VALUES_LIMIT: Final = 100  # values of a term
SELECTOR_LENGTH: Final = 2000  # characters of a selector
_SET: Final = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Term(msgspec.Struct, frozen=True):
    """One condition: the tag has one of the values, or any value if `values` is empty; `negated` inverts it."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


Selector = tuple[Term, ...]
"""An agent matches if all terms are true."""


def parse(text: str) -> Selector:
    """Parse the text form: `k=v`, `k!=v`, `k`, `!k`, `k in (a,b)`, `k notin (a,b)`, separated by commas.

    Raises `Invalid`.
    """
    if len(text) > SELECTOR_LENGTH:
        raise Invalid(f"must have at most {SELECTOR_LENGTH} characters", "selector")
    terms = tuple(_term(part.strip()) for part in re.split(r",(?![^(]*\))", composed(text)) if part.strip())
    return _checked(terms)


def from_tags(wanted: Mapping[str, Any]) -> Selector:
    """Return the selector for an object `{key: value or list of values}`; raises `Invalid`."""
    if len(wanted) > TERMS_LIMIT:
        raise Invalid(f"must have at most {TERMS_LIMIT} terms", "selector")
    terms = []
    for key, value in wanted.items():
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not all(isinstance(item, (str, int, float)) for item in values):
            raise Invalid("must be a string, a number or a list of these", key)
        terms.append(Term(key, tuple(composed(str(item)) for item in values)))
    return _checked(tuple(terms))


def matches(selector: Selector, tags: Mapping[str, str]) -> bool:
    """Whether an agent with these tags matches the selector."""
    return all(
        (term.key in tags and (not term.values or tags[term.key] in term.values)) != term.negated
        for term in selector
    )


def checked_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags as they are stored, all values as text; raises `Invalid` with the key at fault."""
    if len(tags) > TAGS_LIMIT:
        raise Invalid(f"must have at most {TAGS_LIMIT} tags", "tags")
    return {check_key(key): _value(key, value) for key, value in tags.items()}


def check_key(key: str) -> str:
    """Return the key if it is well formed; raises `Invalid` otherwise."""
    if not KEY.fullmatch(key):
        raise Invalid(
            "must be a key of at most 63 letters, digits, dots, slashes, dashes and underscores, with a letter or a"
            " digit at both ends",
            key[:63],
        )
    return key


def check_values(keys: Iterable[tuple[str, str]], allowed: Mapping[str, Sequence[str]]) -> None:
    """Raise `Invalid` for a value that is not among the values defined for its key."""
    for key, value in keys:
        if allowed.get(key) and value not in allowed[key]:
            raise Invalid(
                f"must be one of the defined values, {', '.join(allowed[key][:20])}; it is {value!r}", key
            )


def _value(key: str, value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else value
    if not isinstance(text, (str, int, float)):
        raise Invalid("must be a string, a number or a boolean", key)
    cleaned = composed(strip_nul(str(text)))
    if len(cleaned) > VALUE_LENGTH or _UNSEEN.search(cleaned):
        raise Invalid(f"must have at most {VALUE_LENGTH} characters and no invisible ones", key)
    return cleaned


def _term(text: str) -> Term:
    if match := _SET.fullmatch(text):
        values = tuple(value.strip() for value in match["values"].split(","))
        return Term(match["key"], values, match["op"] == "notin")
    if "!=" in text:
        key, _, value = text.partition("!=")
        return Term(key.strip(), (value.strip(),), negated=True)
    if "=" in text:
        key, _, value = text.replace("==", "=", 1).partition("=")
        return Term(key.strip(), (value.strip(),))
    return Term(text.removeprefix("!").strip(), negated=text.startswith("!"))


def _checked(selector: Selector) -> Selector:
    if len(selector) > TERMS_LIMIT:
        raise Invalid(f"must have at most {TERMS_LIMIT} terms", "selector")
    for term in selector:
        if not KEY.fullmatch(term.key):
            raise Invalid(f"has {term.key[:63]!r} where the key of a tag must be", "selector")
        if len(term.values) > VALUES_LIMIT or any(len(value) > VALUE_LENGTH for value in term.values):
            limit = f"at most {VALUES_LIMIT} values of at most {VALUE_LENGTH} characters each"
            raise Invalid(f"must have {limit} for {term.key}", "selector")
    return selector
