"""Tags of agents, and selectors that choose agents by them: `site=berlin,line in (1,2),!spare`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from iotistica.domain.documents import strip_nul
from iotistica.errors import Invalid

KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
VALUE_LENGTH: Final = 200  # characters
TAGS_LIMIT: Final = 50  # of an agent
TERMS_LIMIT: Final = 20  # of a selector
VALUES_LIMIT: Final = 100  # values of a term
SELECTOR_LENGTH: Final = 2000  # characters of a selector
_SET: Final = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Term(msgspec.Struct, frozen=True):
    """One condition: the key has one of the values, or any if there are none; or, `negated`, it has not."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


Selector = tuple[Term, ...]
"""All of them hold."""


def parse(text: str) -> Selector:
    """A selector as people write it: `k=v`, `k!=v`, `k`, `!k`, `k in (a,b)`, `k notin (a,b)`, joined by commas.

    Raises `Invalid`.
    """
    if len(text) > SELECTOR_LENGTH:
        raise Invalid(f"a selector of more than {SELECTOR_LENGTH} characters", "selector")
    terms = tuple(_term(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip())
    return _checked(terms)


def from_tags(wanted: Mapping[str, Any]) -> Selector:
    """The selector of an object `{key: value or values}`; raises `Invalid`."""
    if len(wanted) > TERMS_LIMIT:
        raise Invalid(f"a selector of more than {TERMS_LIMIT} terms", "selector")
    terms = []
    for key, value in wanted.items():
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not all(isinstance(one, (str, int, float)) for one in values):
            raise Invalid("a tag's value is a text", key)
        terms.append(Term(key, tuple(str(one) for one in values)))
    return _checked(tuple(terms))


def matches(selector: Selector, tags: Mapping[str, str]) -> bool:
    """Whether an agent with these tags is meant."""
    return all(
        (term.key in tags and (not term.values or tags[term.key] in term.values)) != term.negated
        for term in selector
    )


def checked_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as they are kept; raises `Invalid` with the key at fault."""
    if len(tags) > TAGS_LIMIT:
        raise Invalid(f"more than {TAGS_LIMIT} tags", "tags")
    return {check_key(key): _value(key, value) for key, value in tags.items()}


def check_key(key: str) -> str:
    """The key; raises `Invalid`."""
    if not KEY.fullmatch(key):
        raise Invalid("a key is of letters, digits, dots, slashes, dashes and underscores, at most 63", key[:63])
    return key


def check_values(keys: Iterable[tuple[str, str]], allowed: Mapping[str, Sequence[str]]) -> None:
    """Raise `Invalid` for a value that the definition of its key does not name."""
    for key, value in keys:
        if allowed.get(key) and value not in allowed[key]:
            raise Invalid(f"{value!r} is none of the values that are defined: {', '.join(allowed[key][:20])}", key)


def _value(key: str, value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else value
    if not isinstance(text, (str, int, float)):
        raise Invalid("a tag's value is a text", key)
    found = strip_nul(str(text))
    if len(found) > VALUE_LENGTH or _UNSEEN.search(found):
        raise Invalid(f"a value has at most {VALUE_LENGTH} characters, and none that is not seen", key)
    return found


def _term(text: str) -> Term:
    if found := _SET.fullmatch(text):
        values = tuple(value.strip() for value in found["values"].split(","))
        return Term(found["key"], values, found["op"] == "notin")
    if "!=" in text:
        key, _, value = text.partition("!=")
        return Term(key.strip(), (value.strip(),), negated=True)
    if "=" in text:
        key, _, value = text.replace("==", "=", 1).partition("=")
        return Term(key.strip(), (value.strip(),))
    return Term(text.removeprefix("!").strip(), negated=text.startswith("!"))


def _checked(selector: Selector) -> Selector:
    if len(selector) > TERMS_LIMIT:
        raise Invalid(f"a selector of more than {TERMS_LIMIT} terms", "selector")
    for term in selector:
        if not KEY.fullmatch(term.key):
            raise Invalid(f"{term.key[:63]!r} is no key of a tag", "selector")
        if len(term.values) > VALUES_LIMIT or any(len(value) > VALUE_LENGTH for value in term.values):
            raise Invalid(f"{term.key}: at most {VALUES_LIMIT} values of {VALUE_LENGTH} characters", "selector")
    return selector
