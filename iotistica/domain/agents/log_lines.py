"""Parses the log lines of agents, in every format that agents send, and encodes them for the log stream."""

import re
from datetime import timedelta
from typing import Any, Final

import msgspec

from iotistica.domain import codec, documents, timestamps
from iotistica.domain.access import document_secrets
from iotistica.domain.agents.log_levels import FIELDS, LEVELS, level_of
from iotistica.errors import InvalidMessage

LINES: Final = 10_000  # lines of one message
VALUES: Final = 200_000  # JSON values in the lines of one message
INFLATED: Final = 8 << 20  # bytes of one message after inflation
MESSAGE: Final = 32 << 10  # bytes of one line; the rest is cut off
META: Final = 8 << 10  # bytes of JSON of a line's other fields
SERVICE: Final = 200  # characters of a service's name
BATCH: Final = 200  # characters of a batch's id
HTTP: Final = "http"
"""The last level of the topic of log messages that arrived by HTTP."""
RETENTION: Final = timedelta(days=90)
AHEAD: Final = timedelta(days=1)  # a timestamp further in the future is replaced by the time of receipt
_BEGINS_JSON: Final = re.compile(rb"\{\s*[\"}]|\[\s*[\[{\"\]]")
"""How JSON begins, unlike a line of text such as `[INFO] started`."""
_OWN: Final = frozenset(
    ("timestamp", "time", *FIELDS, "message", "source", "serviceName", "containerName", "isSystem", "deviceId")
) | {"isStdErr", "isStderr", "stream", "meta", "context"}


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One log line; `time` is in us since the epoch, `level` is an index into `LEVELS`."""

    time: int
    service: str
    level: int
    message: str
    is_system: bool = False
    is_stderr: bool = False
    meta: dict[str, Any] | None = None


class LogBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of one message; `dropped` counts entries that are not lines or are too old. `id` can be None."""

    lines: list[LogLine]
    id: str | None = None
    dropped: int = 0


def parse_lines(payload: bytes, received: int, *, service: str = "agent") -> LogBatch:
    """Parse a payload: JSON lines, an array, an object with `logs` or `lines`, one JSON line, or plain text.

    `received` is in us since the epoch; `service` is the service of lines that do not name one. Raises
    `InvalidMessage`.
    """
    document, is_msgpack = codec.unwrap(payload, cap=INFLATED)
    if is_msgpack:
        return _batch(codec.decode(document, True, object), received, service)
    text = codec.strip(document)
    if text[:1] in (b"{", b"["):
        return _batch(_json(text), received, service)
    rows = _rows(text)
    return _batch([{"message": row.decode("utf-8", "replace").rstrip()} for row in rows], received, service)


def encode(batch: LogBatch, *, cap: int) -> list[bytes]:
    """Split a batch into messages of at most about `cap` bytes; if the batch has an id, each gets a unique one."""
    messages: list[bytes] = []
    chunk: list[dict[str, Any]] = []
    size = 0
    for line in batch.lines:
        row = _row(line)
        length = len(msgspec.json.encode(row))
        if chunk and size + length > cap:
            messages.append(_message(batch.id, len(messages), chunk))
            chunk, size = [], 0
        chunk.append(row)
        size += length + 1
    return [*messages, _message(batch.id, len(messages), chunk)] if chunk else messages


def _message(id_: str | None, number: int, rows: list[dict[str, Any]]) -> bytes:
    head = {} if id_ is None else {"batchId": f"{id_}#{number}" if number else id_}
    return msgspec.json.encode({**head, "lines": rows})


def _row(line: LogLine) -> dict[str, Any]:
    row: dict[str, Any] = {"timestamp": line.time, "level": LEVELS[line.level], "message": line.message}
    row |= {"serviceName": line.service, "isSystem": line.is_system, "isStdErr": line.is_stderr}
    return row | ({"meta": line.meta} if line.meta else {})


def _json(text: bytes) -> Any:
    """Decode a JSON document, or one document on each line; a line that is not JSON becomes a text message.

    Characters that are not UTF-8, and halves of surrogate pairs, become U+FFFD.
    """
    try:
        return codec.decode(text, False, object)
    except InvalidMessage:
        rows = _rows(text)
        if len(rows) < 2 and _BEGINS_JSON.match(text):
            raise
    decoded: list[Any] = []
    for row in rows:
        if not row.strip():
            continue
        try:
            decoded.append(codec.decode(row, False, object))
        except InvalidMessage:
            decoded.append({"message": row.decode("utf-8", "replace")})
    return decoded


def _rows(text: bytes) -> list[bytes]:
    """Split text into lines; they are counted first, since an empty line is 1 byte on the wire and 50 in memory."""
    if text.count(b"\n") > LINES:
        raise InvalidMessage("too_large", f"more than {LINES} lines")
    return text.split(b"\n")


def _batch(document: Any, received: int, service: str) -> LogBatch:
    id_: str | None = None
    rows = document
    if isinstance(document, dict):
        rows = next((document[key] for key in ("logs", "lines") if isinstance(document.get(key), list)), [document])
        batch_id = document.get("batchId")
        id_ = documents.strip_nul(batch_id)[: BATCH + 10] if isinstance(batch_id, str) and batch_id else None
    if not isinstance(rows, list):
        raise InvalidMessage("unknown_shape", "log lines must be JSON lines, an array of objects, or text")
    if len(rows) > LINES:
        raise InvalidMessage("too_large", f"more than {LINES} lines")
    if documents.is_large(rows, most=VALUES):
        raise InvalidMessage("too_large", f"more than {VALUES} values")
    lines = [line for row in rows if (line := _line(row, received, service)) is not None]
    if not lines and rows and not any(isinstance(row, (dict, str)) for row in rows):
        raise InvalidMessage("unknown_shape", "log lines must be JSON lines, an array of objects, or text")
    return LogBatch(lines=lines, id=id_, dropped=len(rows) - len(lines))


def _line(row: Any, received: int, service: str) -> LogLine | None:
    """Return one log line; None if the row has no message or is older than `RETENTION`."""
    if isinstance(row, str):
        row = {"message": row}
    if not isinstance(row, dict):
        return None
    message = row.get("message", row.get("msg"))
    if message is not None and not isinstance(message, str):
        message = msgspec.json.encode(documents.clean(message)).decode()
    if not message or not message.strip():
        return None
    stamp = row.get("timestamp")
    time = _time(row.get("time") if timestamps.is_absent(stamp) else stamp, received)
    if received - time > RETENTION // timedelta(microseconds=1):
        return None
    source = row.get("source")
    candidates = (
        row.get("serviceName") or (source.get("name") if isinstance(source, dict) else source),
        row.get("containerName"),
    )
    name = next((name for name in candidates if isinstance(name, str) and name.strip()), service)
    return LogLine(
        time=time,
        service=documents.strip_nul(name)[:SERVICE],
        level=level_of(next((row[field] for field in FIELDS if row.get(field) is not None), None)),
        message=_cut(documents.strip_nul(message)),
        is_system=row.get("isSystem") is True,
        is_stderr=True in (row.get("isStdErr"), row.get("isStderr")) or row.get("stream") == "stderr",
        meta=_meta(row),
    )


def _time(stamp: Any, received: int) -> int:
    try:
        time = timestamps.parse_us(stamp)
    except InvalidMessage:
        return received
    return time if time - received <= AHEAD // timedelta(microseconds=1) else received


def _cut(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= MESSAGE else raw[:MESSAGE].decode("utf-8", "ignore") + f"… ({len(raw)} bytes)"


def _meta(row: dict[str, Any]) -> dict[str, Any] | None:
    rest: dict[str, Any] = {key: value for key, value in row.items() if key not in _OWN}
    if row.get("message") is None:
        rest.pop("msg", None)  # the message itself
    for key in ("meta", "context"):
        value = row.get(key)
        if isinstance(value, dict):
            rest |= value
        elif value is not None:
            rest[key] = value
    if not rest:
        return None
    if documents.is_large(rest, most=META):
        return {"dropped": f"more than {META} bytes"}
    meta: dict[str, Any] = document_secrets.mask(documents.clean(rest))
    return meta if len(msgspec.json.encode(meta)) <= META else {"dropped": f"more than {META} bytes"}
