"""JSON documents from outside: cleaned for storage, limited in size and depth, and compared."""

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from iotistica.domain import exact_numbers
from iotistica.domain.exact_numbers import SentNumber

DEEPEST: Final = 32  # levels of a document
VALUES: Final = 50_000  # values of one document, objects and lists included; each is visited several times
MOST: Final = 100  # changes that one comparison lists
SHOWN: Final = 1024  # bytes of JSON of a value in a comparison; of a larger value only the size is given
TOTAL: Final = 32 << 10  # bytes of a comparison; further changes are only counted
KEY: Final = 100  # characters of a key in a path
PATH: Final = 400  # characters of a path
IDENTITIES: Final = ("uuid", "id", "serviceId", "appId", "name")
"""Keys that identify the members of a list; the first key that all members have is used."""


SEALED: Final = "$sealed"
"""The only key of an object that holds a sealed secret; a comparison treats such an object as one value."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference; `before` or `after` is unset where the value is absent."""

    path: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


def strip_nul(text: str) -> str:
    """Return the text without NUL and with "?" for lone surrogates, which PostgreSQL's text cannot hold."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def clean(value: Any, *, deepest: int = DEEPEST) -> Any:
    """Return a document that PostgreSQL's JSON can hold: text without NUL, finite 64-bit numbers, limited depth."""
    if isinstance(value, str):
        return strip_nul(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else exact_numbers.digits(value)
    if isinstance(value, SentNumber):
        return value.sent
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
    """Whether a document has more than `most` values, objects and lists included."""
    left, waiting = most, [value]
    while waiting and left >= 0:
        item = waiting.pop()
        if isinstance(item, dict):
            left -= len(item)
            waiting += item.values()
        elif isinstance(item, list):
            left -= len(item)
            waiting += item
    return left < 0


def is_deep(value: Any, *, deepest: int = DEEPEST) -> bool:
    """Whether a document has more levels than `clean` keeps."""
    level = [value]
    for _ in range(deepest + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return False
    return True


def _members(value: Any) -> list[Any]:
    """Return the objects and lists directly inside a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, (dict, list))]


def differences(old: Any, new: Any) -> list[Change]:
    """Return the first `MOST` changes from `old` to `new`, with paths like `config.endpoints[plc-1].pollInterval`.

    Lists whose members are all objects with an identity are compared by identity, other lists by position.
    """
    changes: list[Change] = []
    _compare(old, new, "", changes)
    size = 0
    for number, change in enumerate(changes):
        size += len(msgspec.json.encode(change))
        if size > TOTAL:
            return [*changes[:number], Change(path="…", after=f"{len(changes) - number} more changes")]
    return changes


def _compare(old: Any, new: Any, path: str, changes: list[Change]) -> None:
    if len(changes) >= MOST or (old == new and type(old) is type(new)):
        return
    if isinstance(old, dict) and isinstance(new, dict) and SEALED not in old and SEALED not in new:
        _compare_keys(old, new, changes, lambda key: f"{path}.{_cut(key)}" if path else _cut(key))
        return
    if isinstance(old, list) and isinstance(new, list):
        names = names_of(old), names_of(new)
        if (names[0] is None and old) or (names[1] is None and new):
            names = None, None
        by_name = [
            dict(zip(n or positions(items), items, strict=True)) for n, items in zip(names, (old, new), strict=True)
        ]
        _compare_keys(by_name[0], by_name[1], changes, lambda key: f"{path}[{_cut(key)}]")
        return
    changes.append(_change(path, old, new))


def _compare_keys(
    old: dict[Any, Any], new: dict[Any, Any], changes: list[Change], path_of: Callable[[str], str]
) -> None:
    for key in [*old, *(key for key in new if key not in old)]:
        if len(changes) >= MOST:
            return
        if key in old and key in new:
            _compare(old[key], new[key], path_of(key), changes)
        else:
            changes.append(_change(path_of(key), old.get(key, msgspec.UNSET), new.get(key, msgspec.UNSET)))


def positions(items: list[Any]) -> list[str]:
    """Return the positions of a list's members as text: "0", "1" and so on."""
    return [str(number) for number in range(len(items))]


def names_of(items: list[Any]) -> list[str] | None:
    """Return the identity of each member of a list; None unless all are objects with different identities."""
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
