"""Decodes payloads: MessagePack or JSON, optionally deflated; the first bytes tell which."""

import json
import math
import re
import zlib
from typing import Any, Final, TypeVar

import msgspec

from iotistica.errors import InvalidMessage

PAYLOAD_CAP: Final = 1 << 20  # bytes as sent; a larger payload becomes a dead letter
INFLATED_CAP: Final = 16 << 20  # bytes after inflation

_DEFLATED: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_MSGPACK: Final = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])

_ESCAPES: Final = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a backslash, or a full surrogate pair
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)

T = TypeVar("T")


def unwrap(payload: bytes, *, cap: int = INFLATED_CAP) -> tuple[bytes, bool]:
    """Return the encoded document inside a payload, and whether it is MessagePack.

    Raises `InvalidMessage` for an empty payload, a truncated or corrupt deflate stream, deflate inside deflate,
    and a document of more than `cap` bytes (after inflation, if it is deflated).
    """
    if payload[:2] in _DEFLATED:
        payload = _inflate(payload, cap)
        if payload[:2] in _DEFLATED:
            raise InvalidMessage("nested_wrapper")
    if not payload:
        raise InvalidMessage("empty")
    if len(payload) > cap:
        raise InvalidMessage("too_large", f"more than {cap} bytes")
    return payload, payload[0] in _MSGPACK


def _inflate(payload: bytes, cap: int) -> bytes:
    inflator = zlib.decompressobj()
    try:
        document = inflator.decompress(payload, cap)
    except zlib.error as exc:
        raise InvalidMessage("bad_deflate", str(exc)) from exc
    if inflator.unconsumed_tail:
        raise InvalidMessage("too_large", f"more than {cap} bytes when inflated")
    if not inflator.eof:
        raise InvalidMessage("truncated_deflate")
    return document


def decode(document: bytes, is_msgpack: bool, type_: type[T]) -> T:
    """Decode a document into `type_`; raises `msgspec.ValidationError` if it has another shape.

    Raises `InvalidMessage` if it cannot be decoded at all.
    """
    try:
        if is_msgpack:
            return msgspec.msgpack.decode(document, type=type_)
        return msgspec.json.decode(document, type=type_)
    except msgspec.ValidationError as exc:
        if type_ is not object:
            raise
        return msgspec.convert(_lenient(document, is_msgpack, exc), type_)  # an integer of 4,300 digits
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        return msgspec.convert(_lenient(document, is_msgpack, exc), type_)


def _lenient(document: bytes, is_msgpack: bool, cause: Exception) -> Any:
    """Decode what Python's JSON parser accepts: NaN, infinities, numbers of any size; bad UTF-8 becomes U+FFFD.

    Agents written in other languages send such values; one of them must not invalidate the other readings.
    """
    if isinstance(cause, RecursionError):
        raise InvalidMessage("too_deep") from cause
    if is_msgpack:
        raise InvalidMessage("bad_msgpack", str(cause)) from cause
    try:
        text = document.decode("utf-8", "replace")
        if b"\\u" in document:  # a lone surrogate cannot be encoded as UTF-8 later
            text = _ESCAPES.sub(lambda m: m[0] if m[1] else "\ufffd", text)
        return json.loads(text, parse_int=_integer)
    except RecursionError as exc:
        raise InvalidMessage("too_deep") from exc
    except ValueError as exc:
        raise InvalidMessage("bad_json", str(exc)) from exc


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python does not parse more than 4,300 digits
        return math.inf
