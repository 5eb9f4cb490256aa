"""Lines that agents log: read from every shape that they come in."""

from datetime import timedelta
from typing import Any, Final

import msgspec

from iotistica.domain import codec, documents, timestamps
from iotistica.domain.access import document_secrets
from iotistica.errors import InvalidMessage

LINES: Final = 10_000  # of one message
VALUES: Final = 200_000  # in the lines of one message
INFLATED: Final = 8 << 20  # bytes of one message
MESSAGE: Final = 32 << 10  # bytes of one line; the rest is cut off
META: Final = 8 << 10  # bytes of JSON beside a line
SERVICE: Final = 200  # characters
BATCH: Final = 200  # characters of a batch's id
HTTP: Final = "http"
"""The last part of the topic of what came by HTTP."""
RETENTION: Final = timedelta(days=90)
AHEAD: Final = timedelta(days=1)
LEVELS: Final = ("trace", "debug", "info", "warn", "error", "fatal")
"""By how grave they are; a line is kept with its place in this list."""
_SAME: Final = {
    "warning": "warn",
    "err": "error",
    "critical": "fatal",
    "crit": "fatal",
    "alert": "fatal",
    "emerg": "fatal",
    "panic": "fatal",
    "notice": "info",
    "information": "info",
    "verbose": "debug",
    "silly": "trace",
}
_OWN: Final = frozenset(
    ("timestamp", "time", "level", "message", "source", "serviceName", "containerName", "isSystem", "deviceId")
) | {"isStdErr", "isStderr", "stream", "meta", "context"}


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line; `time` in us since the epoch, `level` the place in `LEVELS`."""

    time: int
    service: str
    level: int
    message: str
    is_system: bool = False
    is_stderr: bool = False
    meta: dict[str, Any] | None = None


class LogBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that came together; those that are no lines, or too old, are counted. `id` None: it has none."""

    lines: list[LogLine]
    id: str | None = None
    dropped: int = 0


def parse_lines(payload: bytes, received: int, *, service: str = "agent") -> LogBatch:
    """The lines of a payload: JSON lines, an array, an object with `logs` or `lines`, one line, or plain text.

    `received` in us; `service` is whose they are unless they say so. Raises `InvalidMessage`.
    """
    document, is_msgpack = codec.unwrap(payload, cap=INFLATED)
    if is_msgpack:
        return _batch(codec.decode(document, True, object), received, service)
    text = document.strip()
    if text[:1] in (b"{", b"["):
        return _batch(_json(text), received, service)
    rows = _rows(text)
    return _batch([{"message": row.decode("utf-8", "replace").rstrip()} for row in rows], received, service)


def encode(batch: LogBatch, *, cap: int) -> list[bytes]:
    """A batch as messages of about `cap` bytes at most, each with an id of its own if it has one."""
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
    named = {} if id_ is None else {"batchId": f"{id_}#{number}" if number else id_}
    return msgspec.json.encode({**named, "lines": rows})


def _row(line: LogLine) -> dict[str, Any]:
    row: dict[str, Any] = {"timestamp": line.time, "level": LEVELS[line.level], "message": line.message}
    row |= {"serviceName": line.service, "isSystem": line.is_system, "isStdErr": line.is_stderr}
    return row | ({"meta": line.meta} if line.meta else {})


def _json(text: bytes) -> Any:
    """A document, or one on every line; a line that is none is text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        rows = _rows(text)
        if len(rows) < 2:
            raise InvalidMessage("bad_json", str(exc)) from exc
    found: list[Any] = []
    for row in rows:
        if not row.strip():
            continue
        try:
            found.append(msgspec.json.decode(row))
        except (msgspec.DecodeError, RecursionError):
            found.append({"message": row.decode("utf-8", "replace")})
    return found


def _rows(text: bytes) -> list[bytes]:
    """Counted before they are split: an empty line costs a byte on the wire, and fifty in memory."""
    if text.count(b"\n") > LINES:
        raise InvalidMessage("too_large", f"more than {LINES} lines")
    return text.split(b"\n")


def _batch(document: Any, received: int, service: str) -> LogBatch:
    id_: str | None = None
    rows = document
    if isinstance(document, dict):
        rows = next((document[key] for key in ("logs", "lines") if isinstance(document.get(key), list)), [document])
        named = document.get("batchId")
        id_ = documents.strip_nul(named)[: BATCH + 10] if isinstance(named, str) and named else None
    if not isinstance(rows, list):
        raise InvalidMessage("unknown_shape", "log lines are JSON lines, an array of objects, or text")
    if len(rows) > LINES:
        raise InvalidMessage("too_large", f"more than {LINES} lines")
    if documents.is_large(rows, most=VALUES):
        raise InvalidMessage("too_large", f"more than {VALUES} values")
    lines = [line for row in rows if (line := _line(row, received, service)) is not None]
    if not lines and rows and not any(isinstance(row, (dict, str)) for row in rows):
        raise InvalidMessage("unknown_shape", "log lines are JSON lines, an array of objects, or text")
    return LogBatch(lines=lines, id=id_, dropped=len(rows) - len(lines))


def _line(row: Any, received: int, service: str) -> LogLine | None:
    """One line; None for what has no message, or is older than what is kept."""
    if isinstance(row, str):
        row = {"message": row}
    if not isinstance(row, dict):
        return None
    message = row.get("message", row.get("msg"))
    if message is not None and not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    if not message or not message.strip():
        return None
    time = _time(row.get("timestamp", row.get("time")), received)
    if received - time > RETENTION // timedelta(microseconds=1):
        return None
    source = row.get("source")
    named = (
        row.get("serviceName") or (source.get("name") if isinstance(source, dict) else source),
        row.get("containerName"),
    )
    whose = next((name for name in named if isinstance(name, str) and name.strip()), service)
    return LogLine(
        time=time,
        service=documents.strip_nul(whose)[:SERVICE],
        level=level_of(row.get("level")),
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


def level_of(name: Any) -> int:
    """The place of a level among `LEVELS`; what is unknown is info."""
    word = name.lower() if isinstance(name, str) else ""
    word = _SAME.get(word, word)
    return LEVELS.index(word) if word in LEVELS else LEVELS.index("info")


def _cut(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= MESSAGE else raw[:MESSAGE].decode("utf-8", "ignore") + f"… ({len(raw)} bytes)"


def _meta(row: dict[str, Any]) -> dict[str, Any] | None:
    rest: dict[str, Any] = {key: value for key, value in row.items() if key not in _OWN}
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
