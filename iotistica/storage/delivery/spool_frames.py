"""Frames of a segment file: a head with length and checksums, then a payload."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAYLOAD_LIMIT: Final = 64 << 20  # bytes of a payload; a longer one is no length but damage
MAGIC: Final = b"\xf1Io\x01"
_HEAD: Final = struct.Struct(">4sIII")  # magic, length and CRC32 of the payload, CRC32 of the seal and these three
OVERHEAD: Final = _HEAD.size  # bytes of a frame beside its payload
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


def pack(payload: bytes, seal: bytes) -> bytes:
    """The frame of a payload; the file's random `seal` keeps payloads from posing as frames."""
    head = _HEAD.pack(MAGIC, len(payload), zlib.crc32(payload), 0)[:_CHECKED]
    return head + struct.pack(">I", zlib.crc32(seal + head)) + payload


def read(path: Path, seal: bytes, offset: int) -> Frame:
    """The frame that begins there; raises `DamagedError`."""
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
    """Every frame of a file from there on, and what damage lies between and behind them.

    The beginning of a frame at the end is none: a crash has cut it while it was written, and it was never
    acknowledged. Zeros there are what a file system leaves of such a write.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    at = damage = 0
    while at + _HEAD.size <= len(data):
        head = _head(data, at, seal)
        if head is None:
            found = data.find(MAGIC, at + 1)
            at = found if found >= 0 else len(data)
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
    """Length and checksum of the payload, if a head that is whole stands there."""
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
