"""Decodes payloads: MessagePack or JSON, optionally compressed by zlib or gzip; the first bytes tell which."""

import json
import math
import re
import zlib
from collections.abc import Hashable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from iotistica.domain import exact_numbers, payload_formats
from iotistica.errors import InvalidMessage

PAYLOAD_CAP: Final = 1 << 20  # bytes as sent; a larger payload becomes a dead letter
INFLATED_CAP: Final = 16 << 20  # bytes after inflation

_DEFLATED: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")
_GZIP: Final = b"\x1f\x8b"
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32
MEMBERS: Final = 1000  # of a gzip file, which is several files one after another
_MSGPACK: Final = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_BOM: Final = b"\xef\xbb\xbf"
_PADDING: Final = b"\0 \t\r\n\f\v"  # what devices leave around a document

_ESCAPES: Final = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a backslash, or a full surrogate pair
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)

T = TypeVar("T")


def unwrap(payload: bytes, *, cap: int = INFLATED_CAP) -> tuple[bytes, bool]:
    """Return the encoded document inside a payload, and whether it is MessagePack.

    Raises `InvalidMessage` for an empty payload, a truncated or corrupt deflate or gzip stream, one inside another,
    and a document of more than `cap` bytes (after inflation, if it is compressed).
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
    is_gzip = payload[:2] == _GZIP
    document, rest = b"", payload
    for _ in range(MEMBERS):
        inflator = zlib.decompressobj(_ZLIB_OR_GZIP)
        try:
            document += inflator.decompress(rest, cap + 1 - len(document))
        except zlib.error as exc:
            raise InvalidMessage("gzip" if is_gzip else "bad_deflate", f"damaged: {exc}") from exc
        if len(document) > cap or inflator.unconsumed_tail:
            raise InvalidMessage("too_large", f"more than {cap} bytes when inflated")
        if not inflator.eof:
            raise InvalidMessage("gzip" if is_gzip else "truncated_deflate", "its end is missing")
        rest = inflator.unused_data
        if not is_gzip or rest[:2] != _GZIP:
            return document
    raise InvalidMessage("gzip", f"more than {MEMBERS} members")


def decode(document: bytes, is_msgpack: bool, type_: type[T], *, exact: bool = False) -> T:
    """Decode a document into `type_`; raises `msgspec.ValidationError` if it has another shape.

    With `exact`, which is slower, JSON numbers that a double does not give back become `SentNumber`s. Raises
    `InvalidMessage` if the document cannot be decoded at all.
    """
    try:
        if is_msgpack:
            return msgspec.msgpack.decode(document, type=type_)
        if exact:
            decoder: msgspec.json.Decoder[T] = _exact_decoder(cast(Hashable, type_))
            return decoder.decode(document)
        return msgspec.json.decode(document, type=type_)
    except msgspec.ValidationError as exc:
        if type_ is not object:
            raise
        return msgspec.convert(_lenient(document, is_msgpack, exc), type_)  # an integer of 4,300 digits
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        if is_msgpack:
            return msgspec.convert(_without_padding(document, exc), type_)
        stripped = strip(document)
        if stripped != document:
            return decode(stripped, is_msgpack, type_, exact=exact)
        return msgspec.convert(_lenient(document, is_msgpack, exc), type_)


@lru_cache(maxsize=8)
def _exact_decoder(type_: Hashable) -> Any:
    return msgspec.json.Decoder(cast(Any, type_), float_hook=exact_numbers.of_json)


def json_lines(document: bytes, *, most: int) -> list[bytes] | None:
    """Return the lines of a document that has one JSON document on each; raises `InvalidMessage` for too many.

    None unless at least half of the lines are objects or lists, so that a cut document of many lines is not taken
    for several documents.
    """
    lines = [line for line in strip(document).splitlines() if line.strip(_PADDING)]
    if len(lines) > most:
        raise InvalidMessage("too_large", f"more than {most} lines")
    if len(lines) < 2 or any(line.strip() in (b"[", b"{") or line.rstrip().endswith(b",") for line in lines):
        return None
    good = sum(map(_is_document, lines))
    return lines if good and good * 2 >= len(lines) else None


def _is_document(line: bytes) -> bool:
    try:
        return isinstance(decode(line, False, object), (dict, list))
    except InvalidMessage:
        return False


def strip(document: bytes) -> bytes:
    """Return a document without a byte order mark, and without blanks and NULs around it."""
    return document.strip(_PADDING).removeprefix(_BOM).strip(_PADDING)


def _without_padding(document: bytes, cause: Exception) -> Any:
    """Decode MessagePack that has NULs behind it; its own last bytes can be 0, too, up to the 8 of a number."""
    if isinstance(cause, RecursionError):
        raise InvalidMessage("too_deep") from cause
    stripped = document.rstrip(b"\0")
    for zeros in range(min(len(document) - len(stripped), 10)):
        with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return msgspec.msgpack.decode(stripped + bytes(zeros))
    raise InvalidMessage("bad_msgpack", str(cause)) from cause


def _lenient(document: bytes, is_msgpack: bool, cause: Exception) -> Any:
    """Decode what Python's JSON parser accepts: NaN, infinities, numbers of any size; bad UTF-8 becomes U+FFFD.

    Agents written in other languages send such values; one of them must not invalidate the other readings.
    """
    if isinstance(cause, RecursionError):
        raise InvalidMessage("too_deep") from cause
    if is_msgpack:
        raise InvalidMessage("bad_msgpack", str(cause)) from cause
    if not document:
        raise InvalidMessage("empty") from cause
    try:
        text = document.decode("utf-8", "replace")
        if b"\\u" in document:  # a lone surrogate cannot be encoded as UTF-8 later
            text = _ESCAPES.sub(lambda m: m[0] if m[1] else "\ufffd", text)
        return json.loads(text, parse_int=_integer, parse_float=exact_numbers.of_json)
    except RecursionError as exc:
        raise InvalidMessage("too_deep") from exc
    except ValueError as exc:
        if name := payload_formats.format_of(document):
            raise InvalidMessage(name, f"looks like {name}; JSON or MessagePack is expected") from exc
        raise InvalidMessage("bad_json", str(exc)) from exc


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python does not parse more than 4,300 digits
        return math.inf
