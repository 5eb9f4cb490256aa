"""Frames of a segment file: a head with length and checksums, then a payload."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAYLOAD_LIMIT: Final = 64 << 20  # bytes of a payload; a greater length in a head is treated as damage
MAGIC: Final = b"\xf1Io\x01"
_HEAD: Final = struct.Struct(">4sIII")  # magic, length and CRC32 of payload, CRC32 of seal and these
OVERHEAD: Final = _HEAD.size  # bytes of a frame without its payload
_CHECKED: Final = _HEAD.size - 4  # bytes of the head covered by its own checksum


class DamagedError(Exception):
    """The bytes in the file are not what was written; the next complete frame is `size` bytes further on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Frame(NamedTuple):
    """A frame of `size` bytes in the file; without a payload, a damaged part up to the next complete frame."""

    offset: int
    size: int
    payload: bytes | None


def pack(payload: bytes, seal: bytes) -> bytes:
    """Return the frame of a payload; the file's random `seal` prevents a payload from being read as a frame."""
    head = _HEAD.pack(MAGIC, len(payload), zlib.crc32(payload), 0)[:_CHECKED]
    return head + struct.pack(">I", zlib.crc32(seal + head)) + payload


def read(path: Path, seal: bytes, offset: int) -> Frame:
    """Return the frame that starts at `offset`; raises `DamagedError`."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(_HEAD.size)
        if len(data) == _HEAD.size:
            data += file.read(min(_HEAD.unpack(data)[1], PAYLOAD_LIMIT))
    head = _head(data, 0, seal)
    payload = _payload(data, 0, head) if head else None
    if payload is not None:
        return Frame(offset, _HEAD.size + len(payload), payload)
    damage = next(scan(path, seal, offset), None)
    raise DamagedError(damage.size if damage else max(path.stat().st_size - offset, 1))


def scan(path: Path, seal: bytes, offset: int = 0) -> Iterator[Frame]:
    """Yield every frame of a file from `offset` on, and the damaged parts between and after them.

    An incomplete frame at the end does not count as damage: a crash interrupted its write, and it was never
    acknowledged. Zeros at the end are what a file system leaves of such a write.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    at = damage = 0
    while at + _HEAD.size <= len(data):
        head = _head(data, at, seal)
        if head is None:
            magic = data.find(MAGIC, at + 1)
            at = magic if magic >= 0 else len(data)
            continue
        if at > damage:
            yield Frame(offset + damage, at - damage, None)
        size = _HEAD.size + head[0]
        if at + size > len(data):
            return
        yield Frame(offset + at, size, _payload(data, at, head))
        at += size
        damage = at
    tail = data[damage:]
    if len(tail) >= _HEAD.size and tail.strip(b"\0"):
        yield Frame(offset + damage, len(tail), None)


def _head(data: bytes, at: int, seal: bytes) -> tuple[int, int] | None:
    """Return the length and the checksum of the payload, if there is a valid head at `at`."""
    if at + _HEAD.size > len(data):
        return None
    magic, length, check, own = _HEAD.unpack_from(data, at)
    if magic != MAGIC or length > PAYLOAD_LIMIT or own != zlib.crc32(seal + data[at : at + _CHECKED]):
        return None
    return length, check


def _payload(data: bytes, at: int, head: tuple[int, int]) -> bytes | None:
    length, check = head
    payload = data[at + _HEAD.size : at + _HEAD.size + length]
    return payload if len(payload) == length and zlib.crc32(payload) == check else None
