"""Parses payloads of every shape in which agents send readings; each bad reading is rejected on its own."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from iotistica.domain import codec, timestamps
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

READINGS_LIMIT: Final = 20_000  # readings in one payload
LISTS: Final = ("messages", "readings", "tags", "data")  # a payload is valid even if such a list is empty
METRICS_LIMIT: Final = 200  # numbers in one system report
NO_DICTIONARIES: Final[Mapping[int, Expander]] = MappingProxyType({})


class Message(Struct, gc=False):
    timestamp: Any = None
    readings: list[RawReading] | None = None


class Envelope(Struct, gc=False):
    """The two shapes that real agents send; `_items` handles all other shapes."""

    timestamp: Any = None
    protocol: Any = None
    messages: list[Message] | None = None
    readings: list[RawReading] | None = None
    msg_id: Any = field(default=None, name="msgId")


class ParsedPayload(Struct):
    """The content of one payload, which held len(readings) + sum(rejected.values()) readings."""

    readings: list[Reading]
    rejected: dict[str, int]
    heartbeats: int = 0
    msg_id: object = None
    """The id that the agent gave this message, or None."""

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
    """Return all readings in one payload of an `endpoints/…` topic.

    `protocol` comes from the topic, `received` is in us since the epoch, and `expanders` are those of the agent by
    dictionary version. Raises `InvalidMessage` if no part of the payload can be understood, and `NeedsDictionary`
    if it is compacted and its dictionary has not arrived completely.
    """
    context = PayloadContext(protocol=protocol, received=received, oldest=received - retention_us)
    parsed = ParsedPayload([], {})
    document, is_msgpack = codec.unwrap(payload)
    try:
        envelope = codec.decode(document, is_msgpack, Envelope)
    except msgspec.ValidationError:
        envelope = Envelope()
    messages = envelope.messages or []
    if (messages or envelope.readings) and all(message.readings is not None for message in messages):
        lists = [(message.readings or [], message.timestamp) for message in messages]
        lists.append((envelope.readings or [], None))
        _check_size(sum(len(raw_readings) for raw_readings, _ in lists))
        context = _with_protocol(context, envelope.protocol)
        for raw_readings, stamp in lists:
            _add(parsed, raw_readings, envelope.timestamp if timestamps.is_absent(stamp) else stamp, context)
        parsed.msg_id = envelope.msg_id
        return parsed
    root = codec.decode(document, is_msgpack, object)
    version = key_compaction.version_of(root)
    if version is not None:
        if version not in expanders:
            raise NeedsDictionary(version)
        root = expanders[version].expand(root, protocol)  # type: ignore[arg-type]
    if isinstance(root, dict):
        parsed.msg_id = root.get("msgId")
    is_known_shape = root == [] or (isinstance(root, dict) and any(root.get(key) == [] for key in LISTS))
    for count, item in enumerate(_items(root)):
        is_known_shape = True
        _check_size(count + 1)
        if item.heartbeat:
            parsed.heartbeats += 1
            continue
        try:
            raw_reading = msgspec.convert(item.reading, RawReading)
        except msgspec.ValidationError:
            parsed.reject("not_an_object")
            continue
        _add(parsed, (raw_reading,), item.timestamp, _with_protocol(context, item.protocol))
    if not is_known_shape:
        raise InvalidMessage("unknown_shape")
    return parsed


class _Item(Struct):
    """A reading or a heartbeat found in a payload, not validated yet."""

    reading: Any = None
    timestamp: Any = None
    protocol: Any = None
    heartbeat: bool = False


def _items(root: object, depth: int = 0) -> Iterator[_Item]:
    """Yield the readings in a payload of any accepted shape one by one, so that a bad one cannot affect others."""
    if isinstance(root, list):
        for reading in root:
            yield _Item(reading)
        return
    if not isinstance(root, dict):
        return
    stamp, protocol = root.get("timestamp"), root.get("protocol")
    if isinstance(root.get("messages"), list) or isinstance(root.get("readings"), list):
        for message in _list(root, "messages"):
            if not isinstance(message, dict) or not isinstance(message.get("readings"), list):
                yield _Item(message if isinstance(message, dict) and "value" in message else None, stamp, protocol)
                continue
            for reading in message["readings"]:
                yield _Item(reading, message.get("timestamp", stamp), protocol)
        for reading in _list(root, "readings"):
            yield _Item(reading, stamp, protocol)
    elif isinstance(root.get("tags"), list):
        for tag in root["tags"]:
            reading = {"deviceName": root.get("node"), **tag} if isinstance(tag, dict) else tag
            yield _Item(reading, stamp, protocol)
    elif isinstance(root.get("data"), (dict, list)) and depth == 0:
        for item in _items(root["data"], depth + 1):
            item.timestamp = stamp if item.timestamp is None else item.timestamp
            item.protocol = protocol if item.protocol is None else item.protocol
            yield item
    elif "endpoint" in root and "state" in root and "stats" in root:
        yield _Item(heartbeat=True)
    elif "value" in root or "error" in root:
        yield _Item(root)


def _list(root: dict[Any, Any], key: str) -> list[Any]:
    """Return the list under a key, or an empty list if there is none."""
    items = root.get(key)
    return items if isinstance(items, list) else []


def _check_size(readings: int) -> None:
    if readings > READINGS_LIMIT:
        raise InvalidMessage("too_many_readings", f"more than {READINGS_LIMIT} readings")


def _with_protocol(context: PayloadContext, protocol: object) -> PayloadContext:
    label = clean_label(protocol)
    return msgspec.structs.replace(context, protocol=label) if label else context


def _add(parsed: ParsedPayload, raw_readings: Iterable[RawReading], stamp: Any, context: PayloadContext) -> None:
    readings = parsed.readings
    for raw_reading in raw_readings:
        try:
            readings.append(normalise(raw_reading, stamp, context))
        except InvalidMessage as exc:
            parsed.reject(exc.code)


def parse_system_metrics(payload: bytes, *, received: int, retention_us: int) -> ParsedPayload:
    """Return every number in a payload of the `metrics` topic as a reading; nested names are joined with dots.

    `received` is in us since the epoch. Raises `InvalidMessage` if the payload is damaged or not an object.
    """
    document, is_msgpack = codec.unwrap(payload)
    report = codec.decode(document, is_msgpack, object)
    if not isinstance(report, dict):
        raise InvalidMessage("unknown_shape")
    context = PayloadContext(protocol="system", received=received, oldest=received - retention_us)
    parsed = ParsedPayload([], {})
    numbers = _numbers(report, "", 0)
    raw_readings = [
        RawReading(metric=name, value=value) for name, value in itertools.islice(numbers, METRICS_LIMIT)
    ]
    _add(parsed, raw_readings, report.get("timestamp"), context)
    if excess := sum(1 for _ in numbers):
        parsed.rejected["too_many_metrics"] = excess
    return parsed


def _numbers(report: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in report.items():
        # Cut a long name to one character over the limit: it is still rejected, but costs little memory.
        name = f"{prefix}{key if isinstance(key, str) else str(key)[:NAME_CAP]}"[: NAME_CAP + 1]
        if isinstance(value, dict) and depth < 4:
            yield from _numbers(value, f"{name}.", depth + 1)
        elif isinstance(value, (bool, int, float)) and name not in ("timestamp", "version"):
            yield name, value
