"""Frames of a segment file: length and CRC32 of a payload, then the payload."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

LONGEST: Final = 64 << 20  # bytes of a payload; a longer one is no length but damage
_HEAD: Final = struct.Struct(">II")


class DamagedError(Exception):
    """A frame is there in its length, and is not what was written."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Frame(NamedTuple):
    """`size` in bytes in the file; no payload if it is damaged."""

    offset: int
    size: int
    payload: bytes | None


def pack(payload: bytes) -> bytes:
    """The frame of a payload, which is not empty."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path, offset: int) -> Frame:
    """The frame that begins there; raises `DamagedError`."""
    with path.open("rb") as file:
        file.seek(offset)
        length, check = _HEAD.unpack(file.read(_HEAD.size))
        payload = file.read(length)
    if zlib.crc32(payload) != check:
        raise DamagedError(_HEAD.size + length)
    return Frame(offset, _HEAD.size + length, payload)


def scan(path: Path) -> Iterator[Frame]:
    """Every frame of a file up to the first that is cut, as a crash leaves the last one."""
    data, offset = memoryview(path.read_bytes()), 0
    while offset + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size
        if not 0 < length <= LONGEST or start + length > len(data):
            return
        payload = bytes(data[start : start + length])
        yield Frame(offset, _HEAD.size + length, payload if zlib.crc32(payload) == check else None)
        offset = start + length
