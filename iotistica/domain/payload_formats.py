"""Recognises formats that the platform does not read, so that a dead letter names them."""

import base64
import binascii
import re
from typing import Final

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"%PDF", "pdf"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xd9\xd9\xf7", "cbor"),
)
_WIDE: Final[dict[tuple[bool, ...], str]] = {
    (False, True, False, True): "utf-16",
    (True, False, True, False): "utf-16",
    (False, True, True, True): "utf-32",
    (True, True, True, False): "utf-32",
}
"""Where the first four bytes of Latin text are 0, in encodings without a byte order mark."""
_HEAD: Final = 4096  # bytes that are looked at
_LINE_PROTOCOL: Final = re.compile(r"[^\s,=]+(,[^\s,=]+=[^\s,=]+)*\s+[^\s,=]+=\S+(\s+-?\d+)?\s*(\n|$)")
_FORM: Final = re.compile(r"[\w.%+-]+=[^\s&=]*(&[\w.%+-]+=[^\s&=]*)*")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def format_of(document: bytes) -> str | None:
    """Return the name of the format that a document which is neither JSON nor MessagePack looks like.

    None for what looks like damaged JSON.
    """
    head = document[:_HEAD]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:1] == b"<":
        return "xml"
    if head[:1] in (b"{", b"[", b'"') and b"\0" not in head[:4]:
        return None
    if 0 in head[:4]:
        return _WIDE.get(tuple(byte == 0 for byte in head[:4]), "binary")
    if 0xA0 <= head[0] <= 0xBF:
        return "cbor"
    if head[0] == 0x08:
        return "protobuf"
    return _text_format(head, whole=len(document) <= _HEAD)


def _text_format(head: bytes, *, whole: bool) -> str:
    try:
        text = head.decode()
    except UnicodeDecodeError as exc:
        if whole or exc.start < len(head) - 4:
            is_text = not any(byte < 32 and byte not in b"\t\r\n\f" for byte in head)
            return "latin-1" if is_text else "binary"
        text = head[: exc.start].decode()
    if any(ord(c) < 32 and c not in "\t\r\n\f" for c in text):
        return "binary"
    if _is_base64(head):
        return "base64"
    if _LINE_PROTOCOL.match(text):
        return "line-protocol"
    if _FORM.fullmatch(text.strip()):
        return "form"
    first, newline, _ = text.strip().partition("\n")
    return "csv" if newline and any(mark in first for mark in ",;\t") else "text"


def _is_base64(head: bytes) -> bool:
    """Whether the text is base64 of JSON or of something compressed."""
    text = head.strip()
    if len(text) < 8 or not _BASE64.fullmatch(text):
        return False
    try:
        decoded = base64.urlsafe_b64decode(text[: len(text) // 4 * 4].replace(b"+", b"-").replace(b"/", b"_"))
    except binascii.Error:
        return False
    return decoded[:1] in (b"{", b"[") or decoded[:2] in (b"\x1f\x8b", b"\x78\x9c")
