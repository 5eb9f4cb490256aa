"""Parses payloads of every shape in which agents send readings; each bad reading is rejected on its own."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from iotistica.domain import codec, exact_numbers
from iotistica.domain.delivery import key_compaction, payload_shapes
from iotistica.domain.delivery.key_compaction import Expander, NeedsDictionary
from iotistica.domain.telemetry.labels import NAME_CAP, clean_label
from iotistica.domain.telemetry.readings import PayloadContext, RawReading, Reading, normalise
from iotistica.errors import InvalidMessage

READINGS_LIMIT: Final = 20_000  # readings in one payload
METRICS_LIMIT: Final = 200  # numbers in one system report
NO_DICTIONARIES: Final[Mapping[int, Expander]] = MappingProxyType({})


class Message(Struct, gc=False):
    timestamp: Any = None
    readings: list[RawReading] | None = None


class Envelope(Struct, gc=False):
    """The two shapes that real agents send; `payload_shapes` knows all others."""

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
    msg_ids: tuple[object, ...] = ()
    """The ids that the agent gave the messages in this payload."""

    def reject(self, reason: str, times: int = 1) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + times

    def add(self, other: "ParsedPayload") -> None:
        """Add the content of another part of the payload."""
        self.readings += other.readings
        for reason, times in other.rejected.items():
            self.reject(reason, times)
        self.heartbeats += other.heartbeats
        self.msg_ids += other.msg_ids


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
    document, is_msgpack = codec.unwrap(payload)
    try:
        return _parse_document(document, is_msgpack, context, expanders)
    except InvalidMessage as exc:
        if exc.code != "bad_json":
            raise
        lines = codec.json_lines(document, most=READINGS_LIMIT)
        if lines is None:
            raise
    parsed = ParsedPayload([], {})
    for line in lines:
        try:
            part = _parse_document(line, False, context, expanders)
        except InvalidMessage as exc:
            parsed.reject(exc.code)
        else:
            parsed.add(part)
        _check_size(len(parsed.readings))
    return parsed


def _parse_document(
    document: bytes, is_msgpack: bool, context: PayloadContext, expanders: Mapping[int, Expander]
) -> ParsedPayload:
    exact = not is_msgpack and exact_numbers.may_lose_digits(document)
    try:
        parsed = parse_envelope(codec.decode(document, is_msgpack, Envelope, exact=exact), context)
    except msgspec.ValidationError:
        parsed = None
    if parsed is None:
        return parse_shape(codec.decode(document, is_msgpack, object, exact=True), context, expanders)
    if exact or is_msgpack or not any(map(exact_numbers.is_tiny, [reading.value for reading in parsed.readings])):
        return parsed
    if exact_numbers.may_lose_exponent(document):
        return parse_shape(codec.decode(document, False, object, exact=True), context, expanders)
    return parsed


def parse_envelope(envelope: Envelope, context: PayloadContext) -> ParsedPayload | None:
    """Return the readings of the shapes that real agents send; None for another shape. The fast way."""
    messages = envelope.messages or []
    if not (messages or envelope.readings) or any(message.readings is None for message in messages):
        return None
    lists = [
        (message.readings or [], payload_shapes.first_time(message.timestamp, envelope.timestamp))
        for message in messages
    ]
    lists.append((envelope.readings or [], envelope.timestamp))
    _check_size(sum(len(raw_readings) for raw_readings, _ in lists))
    context = _with_protocol(context, envelope.protocol)
    parsed = ParsedPayload([], {})
    for raw_readings, stamp in lists:
        _add(parsed, raw_readings, stamp, context)
    if envelope.msg_id is not None:
        parsed.msg_ids = (envelope.msg_id,)
    return parsed


def parse_shape(root: object, context: PayloadContext, expanders: Mapping[int, Expander]) -> ParsedPayload:
    """Return the readings of a document of any shape, each on its own. Raises as `parse_readings` does."""
    version = None if payload_shapes.has_readings(root) else key_compaction.version_of(root)
    if version is not None:
        if version not in expanders:
            raise NeedsDictionary(version)
        root = expanders[version].expand(root, context.protocol)  # type: ignore[arg-type]
    parsed = ParsedPayload([], {})
    if isinstance(root, dict) and root.get("msgId") is not None:
        parsed.msg_ids = (root["msgId"],)
    is_known_shape = payload_shapes.is_known(root)
    for count, item in enumerate(payload_shapes.items(root)):
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
        raise InvalidMessage("unknown_shape", payload_shapes.describe(root))
    return parsed


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
    report = codec.decode(document, is_msgpack, object, exact=True)
    if not isinstance(report, dict):
        raise InvalidMessage("unknown_shape", "a report on metrics must be an object of names and numbers")
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
