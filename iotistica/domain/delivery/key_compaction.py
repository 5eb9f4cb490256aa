"""Key compaction: what an agent's dictionary says, and compacted payloads written out again.

A compacted payload is `{v, p}`: version of the dictionary and pairs of index and value, `["a", key, items]` for
an array. Indices are counted per domain (key, metric, unit, quality, device) and the pair names no domain, so
one index may stand for several fields. The order in which agents write a reading's fields tells most of them
apart; what it does not is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from iotistica.domain.documents import strip_nul
from iotistica.errors import InvalidMessage

DOMAINS: Final = ("key", "metric", "unit", "quality", "device")
NAMES_LIMIT: Final = 10_000  # of fields, metrics, devices, units in one dictionary
NAME_CAP: Final = 512  # characters
PROTOCOLS_LIMIT: Final = 200
BYTES_LIMIT: Final = 512 << 10  # of all names together
DEPTH_LIMIT: Final = 4  # arrays inside arrays
OBJECTS_LIMIT: Final = 25_000  # of one payload
PAIRS_LIMIT: Final = 20_000  # pairs of one payload in shapes that were not seen before
SHAPES_LIMIT: Final = 1000  # shapes, of at most so many pairs
SHAPE_PAIRS_LIMIT: Final = 200

# As agents write a reading and the envelope around it; what else there is of a reading comes after these.
ORDER: Final = (
    "timestamp",
    "deviceName",
    "deviceId",
    "endpoint_uuid",
    "device_uuid",
    "protocol",
    "metric",
    "value",
    "unit",
    "quality",
    "msgId",
)
_REST: Final = len(ORDER)


class Dictionary(Struct, frozen=True, kw_only=True):
    """Names by index: of fields per domain, of values per enumeration, of metrics and devices per protocol."""

    fields: dict[str, dict[int, str]] = {}
    units: dict[int, str] = {}
    qualities: dict[int, str] = {}
    metrics: dict[str, dict[int, str]] = {}
    devices: dict[str, dict[int, str]] = {}


class NeedsDictionary(Exception):
    """The dictionary of that version has not come, or not all of it."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version


Index = Annotated[int, Meta(ge=0, lt=1 << 31)]


class _Field(Struct):
    name: str
    index: Index
    domain: str = ""


class _Enums(Struct):
    quality: dict[str, Index] = {}
    unit: dict[str, Index] = {}


class _Update(Struct, rename="camel"):
    """A whole dictionary or a delta, as agents send them."""

    version: int
    fields_by_domain: dict[str, list[_Field]] = {}
    new_fields_with_domains: list[_Field] = []
    enums: _Enums = msgspec.field(default_factory=_Enums)
    metrics: dict[str, dict[str, Index]] = {}
    devices: dict[str, dict[str, Index]] = {}


class DictionaryUpdate(Struct, frozen=True):
    """What a message says of the dictionary of its version."""

    version: int
    dictionary: Dictionary


def parse_update(document: object) -> DictionaryUpdate:
    """A message of `meta/dictionary` or its delta; raises `InvalidMessage`."""
    try:
        found = msgspec.convert(document, _Update)
    except msgspec.ValidationError as exc:
        raise InvalidMessage("bad_dictionary", str(exc)) from exc
    if not 0 <= found.version < 1 << 53:
        raise InvalidMessage("bad_dictionary", "version out of range")
    fields: dict[str, dict[int, str]] = {}
    for domain, listed in found.fields_by_domain.items():
        for field in listed:
            fields.setdefault(domain, {})[field.index] = strip_nul(field.name)
    for field in found.new_fields_with_domains:
        fields.setdefault(field.domain, {})[field.index] = strip_nul(field.name)
    if unknown := (fields.keys() | found.fields_by_domain.keys()) - set(DOMAINS):
        raise InvalidMessage("bad_dictionary", f"unknown domain {min(unknown)[:50]!r}")
    dictionary = Dictionary(
        fields=fields,
        units=_by_index(found.enums.unit),
        qualities=_by_index(found.enums.quality),
        metrics={strip_nul(protocol): _by_index(names) for protocol, names in found.metrics.items()},
        devices={strip_nul(protocol): _by_index(names) for protocol, names in found.devices.items()},
    )
    _check(dictionary)
    return DictionaryUpdate(found.version, dictionary)


def merged(old: Dictionary, new: Dictionary) -> Dictionary:
    """Both; where they differ the new one. Raises `InvalidMessage` if that is too much."""
    both = Dictionary(
        fields=_merged(old.fields, new.fields),
        units=old.units | new.units,
        qualities=old.qualities | new.qualities,
        metrics=_merged(old.metrics, new.metrics),
        devices=_merged(old.devices, new.devices),
    )
    _check(both)
    return both


def _by_index(names: Mapping[str, int]) -> dict[int, str]:
    return {index: strip_nul(name) for name, index in names.items()}


def _merged(old: dict[str, dict[int, str]], new: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    return {key: old.get(key, {}) | new.get(key, {}) for key in old.keys() | new.keys()}


def _check(dictionary: Dictionary) -> None:
    tables = [dictionary.units, dictionary.qualities]
    for group in (dictionary.fields, dictionary.metrics, dictionary.devices):
        tables += group.values()
    if sum(map(len, tables)) > NAMES_LIMIT:
        raise InvalidMessage("bad_dictionary", f"more than {NAMES_LIMIT} names")
    groups = [*dictionary.metrics, *dictionary.devices]
    if len(groups) > PROTOCOLS_LIMIT or any(len(name) > NAME_CAP for name in groups):
        raise InvalidMessage("bad_dictionary", f"more than {PROTOCOLS_LIMIT} protocols, or one with a long name")
    if any(len(name) > NAME_CAP for table in tables for name in table.values()):
        raise InvalidMessage("bad_dictionary", f"a name is longer than {NAME_CAP} characters")
    if sum(len(name.encode("utf-8", "replace")) for table in tables for name in table.values()) > BYTES_LIMIT:
        raise InvalidMessage("bad_dictionary", f"more than {BYTES_LIMIT} bytes of names")


def version_of(root: object) -> int | None:
    """The version of the dictionary that a payload is compacted with; None if it is not compacted."""
    if not isinstance(root, dict) or not isinstance(root.get("v"), int):
        return None
    is_compacted = isinstance(root.get("p"), list) or (
        isinstance(root.get("i"), list) and isinstance(root.get("d"), list)
    )
    return int(root["v"]) if is_compacted else None


class Expander:
    """Writes payloads out by one dictionary; remembers how it read the shapes it has seen."""

    def __init__(self, version: int, dictionary: Dictionary) -> None:
        self._version = version
        self._dictionary = dictionary
        self._contexts: dict[str, tuple[dict[int, set[int]], set[int]]] = {}
        self._shapes: dict[tuple[str, tuple[Any, ...]], list[int | None]] = {}
        self._objects = 0  # of the payload in hand
        self._work = 0

    def expand(self, root: Mapping[str, Any], protocol: str) -> Any:
        """The envelope; `protocol` is the topic's. Raises `NeedsDictionary` and `InvalidMessage`."""
        self._objects = self._work = 0
        if isinstance(root.get("p"), list):
            pairs = root["p"]
        elif len(root["i"]) == len(root["d"]) <= PAIRS_LIMIT:
            pairs = list(map(list, zip(root["i"], root["d"], strict=True)))
        else:
            raise InvalidMessage("bad_compaction", f"as many indices as values are needed, at most {PAIRS_LIMIT}")
        if len(pairs) == 1 and _is_array(pairs[0]) and pairs[0][1] == "$root" and isinstance(pairs[0][2], list):
            return [self._object(item, "[].", protocol, 1) for item in pairs[0][2]]
        return self._object(pairs, "", protocol, 0)

    def _object(self, pairs: Any, context: str, protocol: str, depth: int) -> dict[str, Any]:
        self._objects += 1
        if (
            not isinstance(pairs, list)
            or depth > DEPTH_LIMIT
            or self._objects > OBJECTS_LIMIT
            or len(pairs) > PAIRS_LIMIT
        ):
            raise InvalidMessage("bad_compaction", "no list of pairs, too deep, or too many")
        scalars = [pair for pair in pairs if not _is_array(pair)]
        if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], int) for p in scalars):
            raise InvalidMessage("bad_compaction", "a pair is no index and value")
        out: dict[str, Any] = {}
        meanings = self._meanings(context, scalars)
        for (_, value), meaning in zip(scalars, meanings, strict=True):
            if meaning is not None and meaning != _REST:
                out[ORDER[meaning]] = value
        protocol = out["protocol"] if isinstance(out.get("protocol"), str) and not depth else protocol
        self._name_values(out, protocol)
        if "value" in out and any(meaning is None for meaning in meanings):
            out.setdefault("quality", "unknown")  # what was left out may have been it
        for pair in pairs:
            if _is_array(pair) and pair[1] in ("messages", "readings", "tags") and isinstance(pair[2], list):
                inner = f"{context}{pair[1]}[]."
                out[pair[1]] = [self._object(item, inner, protocol, depth + 1) for item in pair[2]]
        return out

    def _name_values(self, out: dict[str, Any], protocol: str) -> None:
        known = self._dictionary
        tables = {
            "deviceName": known.devices.get(protocol, {}),
            "metric": known.metrics.get(protocol, {}),
            "unit": known.units,
            "quality": known.qualities,
        }
        for field, table in tables.items():
            if type(out.get(field)) is int:
                if out[field] not in table:
                    raise NeedsDictionary(self._version)
                out[field] = table[out[field]]

    def _meanings(self, context: str, scalars: Sequence[list[Any]]) -> list[int | None]:
        """For each pair the place in `ORDER` that it must have, `_REST`, or None if it may have several."""
        shape = context, tuple((index, type(value) is int) for index, value in scalars)
        found = self._shapes.get(shape)
        if found is None:
            self._work += len(scalars)
            if self._work > PAIRS_LIMIT:  # honest agents write few shapes
                raise InvalidMessage("bad_compaction", f"more than {PAIRS_LIMIT} pairs in shapes of their own")
            found = self._read_shape(context, shape[1])
            if len(self._shapes) >= SHAPES_LIMIT:
                self._shapes.clear()
            if len(scalars) <= SHAPE_PAIRS_LIMIT:
                self._shapes[shape] = found
        return found

    def _read_shape(self, context: str, shape: tuple[tuple[int, bool], ...]) -> list[int | None]:
        places, rest = self._candidates(context)
        choices = []
        for index, is_int in shape:
            possible = places.get(index, set())
            if is_int and not self._dictionary.units:
                possible = possible - {ORDER.index("unit")}
            choices.append(possible | ({_REST} if index in rest else set()))
        return _only_reading(choices, self._version)

    def _candidates(self, context: str) -> tuple[dict[int, set[int]], set[int]]:
        """Of the fields of a context: places in `ORDER` by index, and the indices of what comes after them."""
        found = self._contexts.get(context)
        if found is None:
            places: dict[int, set[int]] = {}
            rest = set()
            for names in self._dictionary.fields.values():
                for index, name in names.items():
                    field = name.removeprefix(context)
                    if not name.startswith(context) or "[]" in field:
                        continue
                    if field in ORDER:
                        places.setdefault(index, set()).add(ORDER.index(field))
                    else:
                        rest.add(index)
            found = self._contexts[context] = places, rest
        return found


def _only_reading(choices: Sequence[Iterable[int]], version: int) -> list[int | None]:
    """Of all ways to give each pair one of its choices, rising and `_REST` at the end: what they agree on."""
    ahead: list[set[int]] = []  # for each pair, the choices that some beginning leads to
    for options in choices:
        before = ahead[-1] if ahead else {-1}
        ahead.append({o for o in options if any(b < o or b == o == _REST for b in before)})
        if not ahead[-1]:
            raise NeedsDictionary(version)
    meanings: list[int | None] = []
    after: set[int] | None = None
    for options in reversed(ahead):
        possible = (
            options if after is None else {o for o in options if any(o < a or a == o == _REST for a in after)}
        )
        meanings.append(next(iter(possible)) if len(possible) == 1 else None)
        after = possible
    return meanings[::-1]


def _is_array(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 3 and pair[0] == "a" and isinstance(pair[1], str)
