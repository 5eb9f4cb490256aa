"""A segment of a spool: a file of records, each protected by a random seal that is part of the file name."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import spool_frames
from iotistica.storage.delivery.spool_frames import Frame

Message = tuple[bytes, bytes]
"""Topic and payload, as received."""

_HEAD: Final = struct.Struct(">I")


class MessageCounts(msgspec.Struct, frozen=True, array_like=True):
    """Number of messages of one tenant in a record, and of those that must keep their order."""

    messages: int
    ordered: int


class RecordHead(msgspec.Struct, frozen=True, array_like=True):
    """The head of a record; `received` is that of the first message, in us since the epoch."""

    received: int
    tenants: dict[TenantId, MessageCounts]


class SpoolRecord(NamedTuple):
    """A record; `size` is its bytes on the disk."""

    head: RecordHead
    messages: list[Message]
    size: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_head: Final = msgspec.msgpack.Decoder(RecordHead).decode
_decode_messages: Final = msgspec.msgpack.Decoder(list[Message]).decode


CountsByTenant = dict[TenantId, MessageCounts]


class SpoolSegment:
    """A segment file; its name contains its number and the seal of its frames."""

    def __init__(self, path: Path) -> None:
        number, _, seal = path.stem.partition("-")
        self.path = path
        self.number = int(number)
        self.seal = bytes.fromhex(seal)
        self.size = 0  # bytes up to the end of its last complete frame
        self.is_damaged = False
        self.counts: CountsByTenant = {}  # of the records that are not read yet

    def frames(self, offset: int = 0) -> Iterator[Frame]:
        """Yield the frames of the segment from `offset` on."""
        return spool_frames.scan(self.path, self.seal, offset)


def counts_of(frame: Frame) -> CountsByTenant:
    """Return the number of messages of each tenant in a frame; none if the frame is damaged."""
    try:
        return _head(frame.payload)[0].tenants if frame.payload is not None else {}
    except (struct.error, msgspec.MsgspecError):
        return {}


def add_counts(totals: CountsByTenant, tenants: Mapping[TenantId, MessageCounts], sign: int) -> None:
    """Add counts to totals (`sign` 1), or subtract them (-1); a tenant whose count reaches 0 is removed."""
    for tenant, counts in tenants.items():
        total = totals.pop(tenant, MessageCounts(0, 0))
        total = MessageCounts(total.messages + sign * counts.messages, total.ordered + sign * counts.ordered)
        if total != MessageCounts(0, 0):
            totals[tenant] = total


def _head(payload: bytes) -> tuple[RecordHead, int]:
    (size,) = _HEAD.unpack_from(payload)
    end = _HEAD.size + size
    return _decode_head(payload[_HEAD.size : end]), end


def encode_record(received: int, tenants: Mapping[TenantId, MessageCounts], messages: Sequence[Message]) -> bytes:
    """Encode a record as the payload of a frame."""
    head = _encode(RecordHead(received, dict(tenants)))
    return _HEAD.pack(len(head)) + head + _encode(messages)


def decode_record(frame: Frame) -> SpoolRecord:
    """Decode the record in a frame; raises `DamagedError`."""
    assert frame.payload is not None  # noqa: S101 the frame was read, so it is not damaged
    try:
        head, end = _head(frame.payload)
        messages = _decode_messages(frame.payload[end:])
    except (struct.error, msgspec.MsgspecError):
        raise spool_frames.DamagedError(frame.size) from None
    return SpoolRecord(head, messages, frame.size)
