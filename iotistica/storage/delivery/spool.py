"""A spool on disk: what is appended is there after any crash, and is read back in order.

A folder of segments, each a row of frames. A frame holds a head that says how many messages of whom there are,
then the messages. A segment is written by one process and never again after a failure, so a frame that a crash
has cut is the last of its segment, and nothing behind it is lost.
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

SEGMENT_BYTES: Final = 8 << 20  # bytes after which the next segment is begun


class Spool:
    """Of one process. Calls block on the disk; appending and reading may happen in two threads."""

    def __init__(self, folder: Path, *, cap: int, segment: int = SEGMENT_BYTES) -> None:
        """`cap` is in bytes. Raises `CannotStart` when another process has all folders of that name."""
        self.cap = cap
        self.bytes = 0
        self.waiting: Counter[TenantId] = Counter()
        self.ordered: Counter[TenantId] = Counter()
        self.damaged = 0  # frames that were whole once and are not any more
        self.error: str | None = None  # of the last write
        self._segment = segment
        self._segments: deque[SpoolSegment] = deque()
        self._offset = 0  # in the first segment, of what is not read yet
        self._current: SpoolRecord | None = None  # the first, once it was read
        self._out: int | None = None
        self._busy = threading.Lock()
        self.folder = SpoolFolder(folder)
        self._next = 1
        self._recover()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read, not even what belongs to nobody."""
        return not self._segments

    @property
    def messages(self) -> int:
        return self.waiting.total()

    def append(self, received: int, tenants: Mapping[TenantId, MessageCounts], messages: Sequence[Message]) -> None:
        """Write a record; when this returns it is on the disk.

        Raises `Full` at the cap, and `Unavailable` with the reason when the disk does not take it; then
        nothing was appended.
        """
        payload = encode_record(received, tenants, messages)
        with self._busy:
            try:
                size = self._write(payload)
            except OSError as exc:
                self._give_up()
                self.error = f"cannot write to the spool {self.folder.path}: {exc.strerror}"
                raise Unavailable(self.error) from exc
            self.error = None
            self._segments[-1].size += size
            self.bytes += size
            self._count(self._segments[-1], tenants, 1)

    def first(self) -> SpoolRecord | None:
        """The oldest record, which stays until `remove_first`; raises `Unavailable` if it cannot be read."""
        with self._busy:
            while self._segments:
                segment = self._segments[0]
                if self._offset < segment.size:
                    try:
                        return self._read(segment)
                    except OSError as exc:
                        raise Unavailable(f"cannot read the spool {self.folder.path}: {exc.strerror}") from exc
                    except spool_frames.DamagedError as exc:
                        self._skip(exc.size)
                        continue
                if self._out is not None and len(self._segments) == 1:
                    return None
                self._drop_segment()
            return None

    def remove_first(self) -> None:
        """Forget the oldest record; its segment goes once all of it was read."""
        with self._busy:
            segment = self._segments[0]
            record = self._read(segment)
            self._count(segment, record.head.tenants, -1)
            self._offset += record.size
            self._current = None
            if self._offset < segment.size:
                self.folder.note(segment.number, self._offset)
            else:
                self._drop_segment()

    def check(self) -> None:
        """Try the disk again after it refused a write, so that `error` says how it is now."""
        if self.error is not None and self.folder.takes_writes():
            self.error = None

    def room(self) -> int:
        """Bytes that it may hold: its cap, or what the disk has if that is less."""
        return min(self.cap, self.bytes + self.folder.free())

    def close(self) -> None:
        """Let the folder go."""
        with self._busy:
            self._close_out()
            self.folder.close()

    def _read(self, segment: SpoolSegment) -> SpoolRecord:
        if self._current is None:
            frame = spool_frames.read(segment.path, segment.seal, self._offset)
            self._current = decode_record(frame)
        return self._current

    def _write(self, payload: bytes) -> int:
        """Write a frame and have it on the disk; its size. Raises `Full` before anything is written."""
        size = spool_frames.OVERHEAD + len(payload)
        if self.bytes + size > self.cap:
            raise Full(f"the spool {self.folder.path} is at its cap of {self.cap >> 20} MiB")
        if self._out is None or self._segments[-1].size >= self._segment:
            self._begin_segment()
        assert self._out is not None  # noqa: S101 begun just now
        left = memoryview(spool_frames.pack(payload, self._segments[-1].seal))
        while left:
            left = left[os.write(self._out, left) :]
        os.fdatasync(self._out)
        return size

    def _begin_segment(self) -> None:
        self._close_out()
        path = self.folder.path / f"{self._next:020}-{secrets.token_hex(8)}.segment"
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._next += 1
        self._segments.append(SpoolSegment(path))
        self.folder.sync()

    def _give_up(self) -> None:
        """Begin another segment with the next record: what a failed write has left behind is not known."""
        if self._out is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._out, self._segments[-1].size)
        self._close_out()
        if self._segments[-1].size == 0:
            remove(self._segments.pop().path)

    def _close_out(self) -> None:
        if self._out is not None:
            with contextlib.suppress(OSError):
                os.close(self._out)
            self._out = None

    def _drop_segment(self) -> None:
        segment = self._segments.popleft()
        if not self._segments:
            self._close_out()
        self._offset = 0
        self.bytes -= segment.size
        if segment.is_damaged:
            segment.path.rename(segment.path.with_suffix(".damaged"))  # for whoever can read more of it
        else:
            remove(segment.path)

    def _skip(self, size: int) -> None:
        """Go on behind damage, and count anew what is left: what was damaged is not known."""
        self._offset += size
        self.damaged += 1
        segment = self._segments[0]
        segment.is_damaged = True
        logger.bind(segment=str(segment.path)).error("a record on the disk is damaged; the file is kept")
        left = SpoolSegment(segment.path)
        for frame in segment.frames(self._offset):
            if frame.offset < segment.size:
                add_counts(left.counts, counts_of(frame), 1)
        gone = dict(segment.counts)
        add_counts(gone, left.counts, -1)
        self._count(segment, gone, -1)

    def _count(self, segment: SpoolSegment, tenants: Mapping[TenantId, MessageCounts], sign: int) -> None:
        """Count messages in or out; others read the counters meanwhile, so none ever says too little."""
        add_counts(segment.counts, tenants, sign)
        for tenant, counts in tenants.items():
            for counter, messages in ((self.waiting, counts.messages), (self.ordered, counts.ordered)):
                if messages:
                    counter[tenant] += sign * messages
                if not counter[tenant]:
                    del counter[tenant]

    def _recover(self) -> None:
        """Find what an earlier process has left."""
        position = self.folder.noted()
        if position:
            self._next = position[0] + 1  # its number is never used again, or the note would speak of another
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
            logger.bind(messages=self.messages, bytes=self.bytes).info("the spool holds messages of before")
