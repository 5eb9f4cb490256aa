"""A spool on disk: a queue of records that survive any crash and are read back in order.

A spool is a folder of segments, each a sequence of frames. A frame holds a head with the number of messages of each
tenant, then the messages. A segment is written by one process only, and not again after a failed write, so a frame
that a crash has truncated is the last of its segment, and no frame after it is lost.
"""

import contextlib
import os
import secrets
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.errors import Full, Unavailable
from iotistica.storage.delivery import spool_frames
from iotistica.storage.delivery.spool_folder import SpoolFolder, remove
from iotistica.storage.delivery.spool_segment import (
    Message,
    MessageCounts,
    SpoolRecord,
    SpoolSegment,
    add_counts,
    counts_of,
    decode_record,
    encode_record,
)

SEGMENT_BYTES: Final = 8 << 20  # bytes after which a new segment is started


class Spool:
    """The spool of one process. Calls block on the disk; one thread can append while another reads."""

    def __init__(self, folder: Path, *, cap: int, segment: int = SEGMENT_BYTES) -> None:
        """`cap` and `segment` are in bytes. Raises `CannotStart` if other processes hold all folders."""
        self.cap = cap
        self.bytes = 0
        self.waiting: Counter[TenantId] = Counter()
        self.ordered: Counter[TenantId] = Counter()
        self.damaged = 0  # damaged parts skipped; they may have held any number of records
        self.error: str | None = None  # of the last write; None if it succeeded
        self._segment = segment
        self._segments: deque[SpoolSegment] = deque()
        self._offset = 0  # of the first unread frame in the first segment
        self._current: SpoolRecord | None = None  # the oldest record, once it was read
        self._output: int | None = None
        self._mutex = threading.Lock()
        self.folder = SpoolFolder(folder)
        self._next = 1
        self._recover()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read, not even messages without a tenant."""
        return not self._segments

    @property
    def messages(self) -> int:
        return self.waiting.total()

    def append(self, received: int, tenants: Mapping[TenantId, MessageCounts], messages: Sequence[Message]) -> None:
        """Append a record; when this returns, it is on the disk.

        Raises `Full` at the cap, and `Unavailable` with the reason if the write fails; in both cases nothing was
        appended.
        """
        payload = encode_record(received, tenants, messages)
        with self._mutex:
            try:
                size = self._write(payload)
            except OSError as exc:
                self._abandon_segment()
                self.error = f"cannot write to the spool {self.folder.path}: {exc.strerror}"
                raise Unavailable(self.error) from exc
            self.error = None
            self._segments[-1].size += size
            self.bytes += size
            self._count(self._segments[-1], tenants, 1)

    def first(self) -> SpoolRecord | None:
        """Return the oldest record, which stays until `remove_first`; raises `Unavailable` if it cannot be read."""
        with self._mutex:
            while self._segments:
                segment = self._segments[0]
                if self._offset < segment.size:
                    try:
                        return self._read(segment)
                    except OSError as exc:
                        raise Unavailable(f"cannot read the spool {self.folder.path}: {exc.strerror}") from exc
                    except spool_frames.DamagedError as exc:
                        self._skip_damage(exc.size)
                        continue
                if self._output is not None and len(self._segments) == 1:
                    return None
                self._drop_segment()
            return None

    def remove_first(self) -> None:
        """Remove the oldest record; its segment is deleted once all its records are removed."""
        with self._mutex:
            segment = self._segments[0]
            record = self._read(segment)
            self._count(segment, record.head.tenants, -1)
            self._offset += record.size
            self._current = None
            if self._offset < segment.size:
                self.folder.save_position(segment.number, self._offset)
            else:
                self._drop_segment()

    def check(self) -> None:
        """Test the disk again after a failed write, and clear `error` if it accepts writes now."""
        if self.error is not None and self.folder.takes_writes():
            self.error = None

    def room(self) -> int:
        """Return the capacity in bytes: `cap`, or what fits on the disk if that is less."""
        return min(self.cap, self.bytes + self.folder.free())

    def close(self) -> None:
        """Close the files and release the folder."""
        with self._mutex:
            self._close_segment()
            self.folder.close()

    def _read(self, segment: SpoolSegment) -> SpoolRecord:
        if self._current is None:
            frame = spool_frames.read(segment.path, segment.seal, self._offset)
            self._current = decode_record(frame)
        return self._current

    def _write(self, payload: bytes) -> int:
        """Write a frame, flush it to the disk and return its size; raises `Full` before anything is written."""
        size = spool_frames.OVERHEAD + len(payload)
        if self.bytes + size > self.cap:
            raise Full(f"The spool {self.folder.path} is at its cap of {self.cap >> 20} MiB.")
        if self._output is None or self._segments[-1].size >= self._segment:
            self._start_segment()
        assert self._output is not None  # noqa: S101 the segment was started just now
        left = memoryview(spool_frames.pack(payload, self._segments[-1].seal))
        while left:
            left = left[os.write(self._output, left) :]
        os.fdatasync(self._output)
        return size

    def _start_segment(self) -> None:
        self._close_segment()
        path = self.folder.path / f"{self._next:020}-{secrets.token_hex(8)}.segment"
        self._output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._next += 1
        self._segments.append(SpoolSegment(path))
        self.folder.sync()

    def _abandon_segment(self) -> None:
        """Start a new segment with the next record, as a failed write can have left anything in this one."""
        if self._output is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._output, self._segments[-1].size)
        self._close_segment()
        if self._segments[-1].size == 0:
            remove(self._segments.pop().path)

    def _close_segment(self) -> None:
        if self._output is not None:
            with contextlib.suppress(OSError):
                os.close(self._output)
            self._output = None

    def _drop_segment(self) -> None:
        segment = self._segments.popleft()
        if not self._segments:
            self._close_segment()
        self._offset = 0
        self.bytes -= segment.size
        if segment.is_damaged:
            segment.path.rename(segment.path.with_suffix(".damaged"))  # kept for a manual recovery
        else:
            remove(segment.path)

    def _skip_damage(self, size: int) -> None:
        """Skip a damaged part and recount the rest of the segment, as the number of messages lost is not known."""
        self._offset += size
        self.damaged += 1
        segment = self._segments[0]
        segment.is_damaged = True
        logger.bind(segment=str(segment.path)).error("a record in the spool is damaged; the file is kept")
        left = SpoolSegment(segment.path)
        for frame in segment.frames(self._offset):
            if frame.offset < segment.size:
                add_counts(left.counts, counts_of(frame), 1)
        lost = dict(segment.counts)
        add_counts(lost, left.counts, -1)
        self._count(segment, lost, -1)

    def _count(self, segment: SpoolSegment, tenants: Mapping[TenantId, MessageCounts], sign: int) -> None:
        """Add (`sign` 1) or subtract (-1) messages; other threads read the counters, so none is ever too low."""
        add_counts(segment.counts, tenants, sign)
        for tenant, counts in tenants.items():
            for counter, messages in ((self.waiting, counts.messages), (self.ordered, counts.ordered)):
                if messages:
                    counter[tenant] += sign * messages
                if not counter[tenant]:
                    del counter[tenant]

    def _recover(self) -> None:
        """Load the segments that earlier processes have left."""
        position = self.folder.saved_position()
        if position:
            self._next = (
                position[0] + 1
            )  # a number is not reused: the recorded position would match another segment
        for path in sorted(self.folder.path.glob("*-*.segment")):
            segment = SpoolSegment(path)
            self._next = segment.number + 1
            start = position[1] if position and position[0] == segment.number else 0
            for frame in segment.frames():
                segment.size = frame.offset + frame.size
                if frame.offset >= start:
                    self._count(segment, counts_of(frame), 1)
            if segment.size == 0 or (position and (segment.number < position[0] or segment.size <= start)):
                remove(path)
                continue
            self._offset = start if not self._segments else self._offset
            self._segments.append(segment)
            self.bytes += segment.size
        if self._segments:
            logger.bind(messages=self.messages, bytes=self.bytes).info(
                "the spool holds messages of an earlier process"
            )
