"""Key compaction: parses an agent's dictionaries and expands compacted payloads.

A compacted payload is `{v, p}`: the version of the dictionary, and pairs of index and value, or `["a", key, items]`
for an array. Each domain (key, metric, unit, quality, device) counts its own indices and a pair does not name its
domain, so one index can stand for several fields. The order in which agents write the fields of a reading resolves
most of these ambiguities; a field that stays ambiguous is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from iotistica.domain.documents import strip_nul
from iotistica.errors import InvalidMessage

DOMAINS: Final = ("key", "metric", "unit", "quality", "device")
NAMES_LIMIT: Final = 10_000  # names of fields, metrics, devices, units and qualities in one dictionary
NAME_CAP: Final = 512  # characters
PROTOCOLS_LIMIT: Final = 200  # in the tables of metrics and of devices together
BYTES_LIMIT: Final = 512 << 10  # bytes of all names in one dictionary
DEPTH_LIMIT: Final = 4  # levels of nested arrays
OBJECTS_LIMIT: Final = 25_000  # objects in one payload
PAIRS_LIMIT: Final = 20_000  # pairs in one object, and in all objects of uncached shapes of one payload
SHAPES_LIMIT: Final = 1000  # cached shapes
SHAPE_PAIRS_LIMIT: Final = 200  # pairs in a cached shape

# The order in which agents write the fields of an envelope and of a reading; all other fields follow these.
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
_OTHER: Final = len(ORDER)


class Dictionary(Struct, frozen=True, kw_only=True):
    """Names by index: fields by domain, units, qualities, and metrics and devices by protocol."""

    fields: dict[str, dict[int, str]] = {}
    units: dict[int, str] = {}
    qualities: dict[int, str] = {}
    metrics: dict[str, dict[int, str]] = {}
    devices: dict[str, dict[int, str]] = {}


class NeedsDictionary(Exception):
    """The dictionary of this version has not arrived, or lacks an entry that the payload uses."""

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
    """A whole dictionary or a delta, as an agent sends it."""

    version: int
    fields_by_domain: dict[str, list[_Field]] = {}
    new_fields_with_domains: list[_Field] = []
    enums: _Enums = msgspec.field(default_factory=_Enums)
    metrics: dict[str, dict[str, Index]] = {}
    devices: dict[str, dict[str, Index]] = {}


class DictionaryUpdate(Struct, frozen=True):
    """The entries that a message contributes to the dictionary of its version."""

    version: int
    dictionary: Dictionary


def parse_update(document: object) -> DictionaryUpdate:
    """Parse a message of the `meta/dictionary` topic, or a delta of it; raises `InvalidMessage`."""
    try:
        update = msgspec.convert(document, _Update)
    except msgspec.ValidationError as exc:
        raise InvalidMessage("bad_dictionary", str(exc)) from exc
    if not 0 <= update.version < 1 << 53:
        raise InvalidMessage("bad_dictionary", "the version is out of range")
    fields: dict[str, dict[int, str]] = {}
    for domain, listed in update.fields_by_domain.items():
        for field in listed:
            fields.setdefault(domain, {})[field.index] = strip_nul(field.name)
    for field in update.new_fields_with_domains:
        fields.setdefault(field.domain, {})[field.index] = strip_nul(field.name)
    if unknown := (fields.keys() | update.fields_by_domain.keys()) - set(DOMAINS):
        raise InvalidMessage("bad_dictionary", f"unknown domain {min(unknown)[:50]!r}")
    dictionary = Dictionary(
        fields=fields,
        units=_by_index(update.enums.unit),
        qualities=_by_index(update.enums.quality),
        metrics={strip_nul(protocol): _by_index(names) for protocol, names in update.metrics.items()},
        devices={strip_nul(protocol): _by_index(names) for protocol, names in update.devices.items()},
    )
    _check_limits(dictionary)
    return DictionaryUpdate(update.version, dictionary)


def merged(old: Dictionary, new: Dictionary) -> Dictionary:
    """Return both dictionaries as one; `new` wins where they differ. Raises `InvalidMessage` above a limit."""
    both = Dictionary(
        fields=_merged(old.fields, new.fields),
        units=old.units | new.units,
        qualities=old.qualities | new.qualities,
        metrics=_merged(old.metrics, new.metrics),
        devices=_merged(old.devices, new.devices),
    )
    _check_limits(both)
    return both


def _by_index(names: Mapping[str, int]) -> dict[int, str]:
    return {index: strip_nul(name) for name, index in names.items()}


def _merged(old: dict[str, dict[int, str]], new: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    return {key: old.get(key, {}) | new.get(key, {}) for key in old.keys() | new.keys()}


def _check_limits(dictionary: Dictionary) -> None:
    tables = [dictionary.units, dictionary.qualities]
    for group in (dictionary.fields, dictionary.metrics, dictionary.devices):
        tables += group.values()
    if sum(map(len, tables)) > NAMES_LIMIT:
        raise InvalidMessage("bad_dictionary", f"more than {NAMES_LIMIT} names")
    groups = [*dictionary.metrics, *dictionary.devices]
    if len(groups) > PROTOCOLS_LIMIT or any(len(name) > NAME_CAP for name in groups):
        raise InvalidMessage("bad_dictionary", f"more than {PROTOCOLS_LIMIT} protocols, or a long protocol name")
    if any(len(name) > NAME_CAP for table in tables for name in table.values()):
        raise InvalidMessage("bad_dictionary", f"a name is longer than {NAME_CAP} characters")
    if sum(len(name.encode("utf-8", "replace")) for table in tables for name in table.values()) > BYTES_LIMIT:
        raise InvalidMessage("bad_dictionary", f"more than {BYTES_LIMIT} bytes of names")


def version_of(root: object) -> int | None:
    """Return the version of the dictionary that a payload is compacted with, or None if it is not compacted."""
    if not isinstance(root, dict) or not isinstance(root.get("v"), int):
        return None
    is_compacted = isinstance(root.get("p"), list) or (
        isinstance(root.get("i"), list) and isinstance(root.get("d"), list)
    )
    return int(root["v"]) if is_compacted else None


class Expander:
    """Expands payloads with one dictionary; caches the meaning of the object shapes it has seen."""

    def __init__(self, version: int, dictionary: Dictionary) -> None:
        self._version = version
        self._dictionary = dictionary
        self._contexts: dict[str, tuple[dict[int, set[int]], set[int]]] = {}
        self._shapes: dict[tuple[str, tuple[Any, ...]], list[int | None]] = {}
        self._objects = 0  # objects of the current payload
        self._uncached_pairs = 0  # pairs of the current payload in shapes that were not cached

    def expand(self, root: Mapping[str, Any], protocol: str) -> Any:
        """Return the envelope; `protocol` comes from the topic. Raises `NeedsDictionary` and `InvalidMessage`."""
        self._objects = self._uncached_pairs = 0
        if isinstance(root.get("p"), list):
            pairs = root["p"]
        elif len(root["i"]) == len(root["d"]) <= PAIRS_LIMIT:
            pairs = list(map(list, zip(root["i"], root["d"], strict=True)))
        else:
            raise InvalidMessage("bad_compaction", f"needs as many indices as values, at most {PAIRS_LIMIT}")
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
            raise InvalidMessage("bad_compaction", "not a list of pairs, too deep, or too many pairs or objects")
        scalars = [pair for pair in pairs if not _is_array(pair)]
        if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], int) for p in scalars):
            raise InvalidMessage("bad_compaction", "a pair is not an index and a value")
        out: dict[str, Any] = {}
        meanings = self._meanings(context, scalars)
        for (_, value), meaning in zip(scalars, meanings, strict=True):
            if meaning is not None and meaning != _OTHER:
                out[ORDER[meaning]] = value
        protocol = out["protocol"] if isinstance(out.get("protocol"), str) and not depth else protocol
        self._decode_values(out, protocol)
        if "value" in out and any(meaning is None for meaning in meanings):
            out.setdefault("quality", "unknown")  # an ambiguous field that was left out can be the quality
        for pair in pairs:
            if _is_array(pair) and pair[1] in ("messages", "readings", "tags") and isinstance(pair[2], list):
                inner = f"{context}{pair[1]}[]."
                out[pair[1]] = [self._object(item, inner, protocol, depth + 1) for item in pair[2]]
        return out

    def _decode_values(self, out: dict[str, Any], protocol: str) -> None:
        dictionary = self._dictionary
        tables = {
            "deviceName": dictionary.devices.get(protocol, {}),
            "metric": dictionary.metrics.get(protocol, {}),
            "unit": dictionary.units,
            "quality": dictionary.qualities,
        }
        for field, table in tables.items():
            if type(out.get(field)) is int:
                if out[field] not in table:
                    raise NeedsDictionary(self._version)
                out[field] = table[out[field]]

    def _meanings(self, context: str, scalars: Sequence[list[Any]]) -> list[int | None]:
        """Return for each pair its place in `ORDER`, `_OTHER` for other fields, or None if it is ambiguous."""
        shape = context, tuple((index, type(value) is int) for index, value in scalars)
        meanings = self._shapes.get(shape)
        if meanings is None:
            self._uncached_pairs += len(scalars)
            if self._uncached_pairs > PAIRS_LIMIT:  # a well-behaved agent writes few shapes
                raise InvalidMessage("bad_compaction", f"more than {PAIRS_LIMIT} pairs in objects of new shapes")
            meanings = self._resolve(context, shape[1])
            if len(self._shapes) >= SHAPES_LIMIT:  # drop the oldest tenth: an LRU would hash each shape again
                for oldest in list(self._shapes)[: SHAPES_LIMIT // 10]:
                    del self._shapes[oldest]
            if len(scalars) <= SHAPE_PAIRS_LIMIT:
                self._shapes[shape] = meanings
        return meanings

    def _resolve(self, context: str, shape: tuple[tuple[int, bool], ...]) -> list[int | None]:
        places, others = self._candidates(context)
        choices = []
        for index, is_int in shape:
            possible = places.get(index, set())
            if is_int and not self._dictionary.units:
                possible = possible - {ORDER.index("unit")}
            choices.append(possible | ({_OTHER} if index in others else set()))
        return _agreed_meanings(choices, self._version)

    def _candidates(self, context: str) -> tuple[dict[int, set[int]], set[int]]:
        """Return, for the fields of a context, the places in `ORDER` by index, and the indices of other fields."""
        candidates = self._contexts.get(context)
        if candidates is None:
            places: dict[int, set[int]] = {}
            others = set()
            for names in self._dictionary.fields.values():
                for index, name in names.items():
                    field = name.removeprefix(context)
                    if not name.startswith(context) or "[]" in field:
                        continue
                    if field in ORDER:
                        places.setdefault(index, set()).add(ORDER.index(field))
                    else:
                        others.add(index)
            candidates = self._contexts[context] = places, others
        return candidates


def _agreed_meanings(choices: Sequence[Iterable[int]], version: int) -> list[int | None]:
    """Return per pair the choice that all ascending assignments share, or None; only `_OTHER` can repeat."""
    ahead: list[set[int]] = []  # for each pair, the choices that an assignment of the pairs before it allows
    for options in choices:
        before = ahead[-1] if ahead else {-1}
        ahead.append({o for o in options if any(b < o or b == o == _OTHER for b in before)})
        if not ahead[-1]:
            raise NeedsDictionary(version)
    meanings: list[int | None] = []
    after: set[int] | None = None
    for options in reversed(ahead):
        possible = (
            options if after is None else {o for o in options if any(o < a or a == o == _OTHER for a in after)}
        )
        meanings.append(next(iter(possible)) if len(possible) == 1 else None)
        after = possible
    return meanings[::-1]


def _is_array(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 3 and pair[0] == "a" and isinstance(pair[1], str)
