"""A segment of a spool: a file of records, sealed by what is in its name."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import spool_frames
from iotistica.storage.delivery.spool_frames import Frame

Message = tuple[bytes, bytes]
"""Topic and payload, as they came."""

_HEAD: Final = struct.Struct(">I")


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one tenant in a record, and those of them that must keep their order."""

    messages: int
    ordered: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """`received` of the first message in us since the epoch."""

    received: int
    tenants: dict[TenantId, Counts]


class Record(NamedTuple):
    """`size` in bytes on the disk."""

    head: Head
    messages: list[Message]
    size: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_head: Final = msgspec.msgpack.Decoder(Head).decode
_decode_messages: Final = msgspec.msgpack.Decoder(list[Message]).decode


Tally = dict[TenantId, Counts]


class Segment:
    """A file: its number and the seal of its frames are in its name."""

    def __init__(self, path: Path) -> None:
        number, _, seal = path.stem.partition("-")
        self.path = path
        self.number = int(number)
        self.seal = bytes.fromhex(seal)
        self.size = 0  # up to the end of its last whole frame
        self.is_damaged = False
        self.tally: Tally = {}  # of what is not read yet

    def frames(self, offset: int = 0) -> Iterator[Frame]:
        """Its frames from there on."""
        return spool_frames.scan(self.path, self.seal, offset)


def tenants_of(frame: Frame) -> Tally:
    """Whose messages a frame holds; nobody's, if it is damaged."""
    try:
        return _head(frame.payload)[0].tenants if frame.payload is not None else {}
    except (struct.error, msgspec.MsgspecError):
        return {}


def add(tally: Tally, tenants: Mapping[TenantId, Counts], sign: int) -> None:
    """Add counts to a tally, or take them off it."""
    for tenant, counts in tenants.items():
        old = tally.pop(tenant, Counts(0, 0))
        new = Counts(old.messages + sign * counts.messages, old.ordered + sign * counts.ordered)
        if new != Counts(0, 0):
            tally[tenant] = new


def _head(payload: bytes) -> tuple[Head, int]:
    (size,) = _HEAD.unpack_from(payload)
    end = _HEAD.size + size
    return _decode_head(payload[_HEAD.size : end]), end


def packed(received: int, tenants: Mapping[TenantId, Counts], messages: Sequence[Message]) -> bytes:
    """The payload of a record."""
    head = _encode(Head(received, dict(tenants)))
    return _HEAD.pack(len(head)) + head + _encode(messages)


def unpacked(frame: Frame) -> Record:
    """The record of a frame; raises `DamagedError`."""
    assert frame.payload is not None  # noqa: S101 it was read, so it is not damaged
    try:
        head, end = _head(frame.payload)
        messages = _decode_messages(frame.payload[end:])
    except (struct.error, msgspec.MsgspecError):
        raise spool_frames.DamagedError(frame.size) from None
    return Record(head, messages, frame.size)
