"""Frames of a segment file: a head with length and checksums, then a payload."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

LONGEST: Final = 64 << 20  # bytes of a payload; a longer one is no length but damage
MAGIC: Final = b"\xf1Io\x01"
_HEAD: Final = struct.Struct(">4sIII")  # magic, length and CRC32 of the payload, CRC32 of these three
_CHECKED: Final = _HEAD.size - 4  # bytes of the head under its own checksum


class DamagedError(Exception):
    """What stands there is not what was written; the next whole frame is `size` bytes on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Frame(NamedTuple):
    """`size` in bytes in the file; without a payload it is damage, up to the next frame that is whole."""

    offset: int
    size: int
    payload: bytes | None


def pack(payload: bytes) -> bytes:
    """The frame of a payload."""
    head = _HEAD.pack(MAGIC, len(payload), zlib.crc32(payload), 0)[:_CHECKED]
    return head + struct.pack(">I", zlib.crc32(head)) + payload


def read(path: Path, offset: int) -> Frame:
    """The frame that begins there; raises `DamagedError`."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(_HEAD.size)
        if len(data) == _HEAD.size:
            data += file.read(min(_HEAD.unpack(data)[1], LONGEST))
    payload = _whole(data, 0) if len(data) >= _HEAD.size else None
    if payload is not None:
        return Frame(offset, _HEAD.size + len(payload), payload)
    damage = next(scan(path, offset), None)
    raise DamagedError(damage.size if damage else max(path.stat().st_size - offset, 1))


def scan(path: Path, offset: int = 0) -> Iterator[Frame]:
    """Every frame of a file from there on up to the last that is whole, and what damage lies between them.

    What follows the last whole frame was cut by a crash while it was written, and never acknowledged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    base, at, damage = offset, 0, 0
    while at + _HEAD.size <= len(data):
        payload = _whole(data, at)
        if payload is None:
            at = data.find(MAGIC, at + 1)
            if at < 0:
                return
            continue
        if at > damage:
            yield Frame(base + damage, at - damage, None)
        size = _HEAD.size + len(payload)
        yield Frame(base + at, size, payload)
        at += size
        damage = at


def _whole(data: bytes, at: int) -> bytes | None:
    magic, length, check, own = _HEAD.unpack_from(data, at)
    if magic != MAGIC or own != zlib.crc32(data[at : at + _CHECKED]) or length > LONGEST:
        return None
    start = at + _HEAD.size
    payload = data[start : start + length]
    return payload if len(payload) == length and zlib.crc32(payload) == check else None
