"""Envelopes: every shape in which agents send readings; one bad reading is rejected alone."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from iotistica.domain import codec
from iotistica.domain.delivery import key_compaction
from iotistica.domain.delivery.key_compaction import Expander, NeedsDictionary
from iotistica.domain.telemetry.readings import (
    NAME_CAP,
    PayloadContext,
    RawReading,
    Reading,
    clean_label,
    normalise,
)
from iotistica.errors import InvalidMessage

READINGS_LIMIT: Final = 20_000  # of one payload
LISTS: Final = ("messages", "readings", "tags", "data")  # may be empty
METRICS_LIMIT: Final = 200  # numbers of one system report
NO_DICTIONARIES: Final[Mapping[int, Expander]] = MappingProxyType({})


class Message(Struct, gc=False):
    timestamp: Any = None
    readings: list[RawReading] | None = None


class Envelope(Struct, gc=False):
    """The two shapes real agents send; everything else goes through `_shapes`."""

    timestamp: Any = None
    protocol: Any = None
    messages: list[Message] | None = None
    readings: list[RawReading] | None = None
    msg_id: Any = field(default=None, name="msgId")


class ParsedPayload(Struct):
    """What one payload held. found == len(readings) + sum(rejected.values())."""

    readings: list[Reading]
    rejected: dict[str, int]
    heartbeats: int = 0
    msg_id: object = None
    """What the agent calls this message, if it does."""

    def reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


def parse_readings(
    payload: bytes,
    *,
    protocol: str,
    received: int,
    retention_us: int,
    expanders: Mapping[int, Expander] = NO_DICTIONARIES,
) -> ParsedPayload:
    """All readings of one payload of an `endpoints/…` topic.

    `protocol` is the topic's, `received` in us since the epoch; `expanders` are the agent's, by version. Raises
    `InvalidMessage` if nothing of the payload can be understood, `NeedsDictionary` if it is compacted and
    cannot be written out yet.
    """
    context = PayloadContext(protocol=protocol, received=received, oldest=received - retention_us)
    found = ParsedPayload([], {})
    document, is_msgpack = codec.unwrap(payload)
    try:
        envelope = codec.decode(document, is_msgpack, Envelope)
    except msgspec.ValidationError:
        envelope = Envelope()
    messages = envelope.messages or []
    if (messages or envelope.readings) and all(message.readings is not None for message in messages):
        lists = [(message.readings or [], message.timestamp) for message in messages]
        lists.append((envelope.readings or [], None))
        _check_size(sum(len(points) for points, _ in lists))
        context = _with_protocol(context, envelope.protocol)
        for points, stamp in lists:
            _add(found, points, envelope.timestamp if stamp is None else stamp, context)
        found.msg_id = envelope.msg_id
        return found
    root = codec.decode(document, is_msgpack, object)
    version = key_compaction.version_of(root)
    if version is not None:
        if version not in expanders:
            raise NeedsDictionary(version)
        root = expanders[version].expand(root, protocol)  # type: ignore[arg-type]
    if isinstance(root, dict):
        found.msg_id = root.get("msgId")
    known = root == [] or (isinstance(root, dict) and any(root.get(key) == [] for key in LISTS))
    for count, shape in enumerate(_shapes(root)):
        known = True
        _check_size(count + 1)
        if shape.heartbeat:
            found.heartbeats += 1
            continue
        try:
            point = msgspec.convert(shape.reading, RawReading)
        except msgspec.ValidationError:
            found.reject("not_an_object")
            continue
        _add(found, (point,), shape.timestamp, _with_protocol(context, shape.protocol))
    if not known:
        raise InvalidMessage("unknown_shape")
    return found


class _Shape(Struct):
    reading: Any = None
    timestamp: Any = None
    protocol: Any = None
    heartbeat: bool = False


def _shapes(root: object, depth: int = 0) -> Iterator[_Shape]:
    """Every reading of any accepted shape, one by one, so that a bad neighbour costs nothing."""
    if isinstance(root, list):
        for item in root:
            yield _Shape(item)
        return
    if not isinstance(root, dict):
        return
    stamp, protocol = root.get("timestamp"), root.get("protocol")
    if isinstance(root.get("messages"), list) or isinstance(root.get("readings"), list):
        for message in _items(root, "messages"):
            if not isinstance(message, dict) or not isinstance(message.get("readings"), list):
                yield _Shape(message if isinstance(message, dict) and "value" in message else None, stamp, protocol)
                continue
            for reading in message["readings"]:
                yield _Shape(reading, message.get("timestamp", stamp), protocol)
        for reading in _items(root, "readings"):
            yield _Shape(reading, stamp, protocol)
    elif isinstance(root.get("tags"), list):
        for tag in root["tags"]:
            named = {"deviceName": root.get("node"), **tag} if isinstance(tag, dict) else tag
            yield _Shape(named, stamp, protocol)
    elif isinstance(root.get("data"), (dict, list)) and depth == 0:
        for shape in _shapes(root["data"], depth + 1):
            shape.timestamp = stamp if shape.timestamp is None else shape.timestamp
            shape.protocol = protocol if shape.protocol is None else shape.protocol
            yield shape
    elif "endpoint" in root and "state" in root and "stats" in root:
        yield _Shape(heartbeat=True)
    elif "value" in root or "error" in root:
        yield _Shape(root)


def _items(root: dict[Any, Any], key: str) -> list[Any]:
    items = root.get(key)
    return items if isinstance(items, list) else []


def _check_size(readings: int) -> None:
    if readings > READINGS_LIMIT:
        raise InvalidMessage("too_many_readings", f"more than {READINGS_LIMIT}")


def _with_protocol(context: PayloadContext, protocol: object) -> PayloadContext:
    label = clean_label(protocol)
    return msgspec.structs.replace(context, protocol=label) if label else context


def _add(found: ParsedPayload, points: Iterable[RawReading], stamp: Any, context: PayloadContext) -> None:
    readings = found.readings
    for point in points:
        try:
            readings.append(normalise(point, stamp, context))
        except InvalidMessage as exc:
            found.reject(exc.code)


def parse_system_metrics(payload: bytes, *, received: int, retention_us: int) -> ParsedPayload:
    """The readings of a `metrics` topic: every number in the report, nested names joined by dots."""
    document, is_msgpack = codec.unwrap(payload)
    report = codec.decode(document, is_msgpack, object)
    if not isinstance(report, dict):
        raise InvalidMessage("unknown_shape")
    context = PayloadContext(protocol="system", received=received, oldest=received - retention_us)
    found = ParsedPayload([], {})
    numbers = _numbers(report, "", 0)
    points = [RawReading(metric=name, value=value) for name, value in itertools.islice(numbers, METRICS_LIMIT)]
    _add(found, points, report.get("timestamp"), context)
    if beyond := sum(1 for _ in numbers):
        found.rejected["too_many_metrics"] = beyond
    return found


def _numbers(report: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in report.items():
        # A name that is too long is cut so that it stays too long: it is rejected, and costs little.
        name = f"{prefix}{key if isinstance(key, str) else str(key)[:NAME_CAP]}"[: NAME_CAP + 1]
        if isinstance(value, dict) and depth < 4:
            yield from _numbers(value, f"{name}.", depth + 1)
        elif isinstance(value, (bool, int, float)) and name not in ("timestamp", "version"):
            yield name, value
