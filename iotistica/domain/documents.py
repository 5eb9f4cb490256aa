"""JSON documents of others: made fit to be kept, and compared."""

import math
from typing import Any, Final

import msgspec

DEEPEST: Final = 32  # levels of a document
VALUES: Final = 50_000  # in one document, objects and lists among them; each is looked at several times
MOST: Final = 100  # changes named of one comparison
SHOWN: Final = 1024  # bytes of a value that a comparison shows
TOTAL: Final = 32 << 10  # bytes of a comparison; what is beyond is counted
KEY: Final = 100  # characters of a key in a path
PATH: Final = 400  # characters of a path
IDENTITIES: Final = ("uuid", "id", "serviceId", "appId", "name")
"""What tells the members of a list apart, the first that all of them have."""


SEALED: Final = "$sealed"
"""The one key of the object that stands for a sealed text; it is compared as a whole."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference; what is absent on a side is unset there."""

    path: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


def strip_nul(text: str) -> str:
    """PostgreSQL's text holds no NUL, nor half a surrogate pair."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def clean(value: Any, *, deepest: int = DEEPEST) -> Any:
    """A document as PostgreSQL's JSON can hold it: text without NUL, finite numbers of 64 bits, not too deep."""
    if isinstance(value, str):
        return strip_nul(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else "a number too large"
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if deepest == 0:
        return "too deep"
    if isinstance(value, list):
        return [clean(item, deepest=deepest - 1) for item in value]
    if isinstance(value, dict):
        return {strip_nul(str(key)): clean(item, deepest=deepest - 1) for key, item in value.items()}
    return strip_nul(str(value))[:SHOWN]


def is_large(value: Any, *, most: int = VALUES) -> bool:
    """Whether a document holds more values than anybody should have to look at."""
    left, waiting = most, [value]
    while waiting and left >= 0:
        one = waiting.pop()
        if isinstance(one, dict):
            left -= len(one)
            waiting += one.values()
        elif isinstance(one, list):
            left -= len(one)
            waiting += one
    return left < 0


def is_deep(value: Any, *, deepest: int = DEEPEST) -> bool:
    """Whether a document has more levels than `clean` leaves it."""
    level = [value]
    for _ in range(deepest + 1):
        level = [inner for one in level for inner in _members(one)]
        if not level:
            return False
    return True


def _members(value: Any) -> list[Any]:
    """The objects and lists directly inside."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in inner if isinstance(one, (dict, list))]


def differences(old: Any, new: Any) -> list[Change]:
    """What is different in `new`, by path, as `config.endpoints[plc-1].pollInterval`; the first `MOST`.

    Lists of objects that all have an identity are compared by it, others by position.
    """
    found: list[Change] = []
    _compare(old, new, "", found)
    size = 0
    for number, change in enumerate(found):
        size += len(msgspec.json.encode(change))
        if size > TOTAL:
            return [*found[:number], Change(path="…", after=f"{len(found) - number} changes more")]
    return found


def _compare(old: Any, new: Any, path: str, found: list[Change]) -> None:
    if len(found) >= MOST or (old == new and type(old) is type(new)):
        return
    if isinstance(old, dict) and isinstance(new, dict) and SEALED not in old and SEALED not in new:
        _compare_keys(old, new, path, found, lambda key: f"{path}.{_cut(key)}" if path else _cut(key))
        return
    if isinstance(old, list) and isinstance(new, list):
        names = names_of(old), names_of(new)
        if (names[0] is None and old) or (names[1] is None and new):
            names = None, None
        by_name = [
            dict(zip(n or positions(items), items, strict=True)) for n, items in zip(names, (old, new), strict=True)
        ]
        _compare_keys(by_name[0], by_name[1], path, found, lambda key: f"{path}[{_cut(key)}]")
        return
    found.append(_change(path, old, new))


def _compare_keys(old: dict[Any, Any], new: dict[Any, Any], path: str, found: list[Change], named: Any) -> None:
    for key in [*old, *(key for key in new if key not in old)]:
        if len(found) >= MOST:
            return
        if key in old and key in new:
            _compare(old[key], new[key], named(key), found)
        else:
            found.append(_change(named(key), old.get(key, msgspec.UNSET), new.get(key, msgspec.UNSET)))


def positions(items: list[Any]) -> list[str]:
    """The members of a list by their places."""
    return [str(number) for number in range(len(items))]


def names_of(items: list[Any]) -> list[str] | None:
    """What tells each member of a list from the others, if they all are objects that say it."""
    if not all(isinstance(item, dict) for item in items):
        return None
    for name in IDENTITIES:
        if all(isinstance(item.get(name), (str, int)) for item in items):
            names = [str(item[name]) for item in items]
            if len(set(names)) == len(names):
                return names
    return None


def _cut(key: Any) -> str:
    text = str(key)
    return text if len(text) <= KEY else text[:KEY] + "…"


def _change(path: str, old: Any, new: Any) -> Change:
    shown = path if len(path) <= PATH else f"{path[: PATH // 2]}…{path[-PATH // 2 :]}"
    return Change(path=shown, before=_short(old), after=_short(new))


def _short(value: Any) -> Any:
    if value is msgspec.UNSET:
        return value
    size = len(msgspec.json.encode(value))
    return value if size <= SHOWN else f"({size} bytes)"
