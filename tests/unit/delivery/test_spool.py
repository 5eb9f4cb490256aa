"""The spool on a real disk: after any failure, appended records are read back once and in order."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iotistica.domain.ids import TenantId
from iotistica.errors import CannotStart, Full, Unavailable
from iotistica.storage.delivery import spool_frames
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.delivery.spool_segment import Message, MessageCounts

ONE, TWO = TenantId("a" * 12), TenantId("b" * 12)


def record(number: int, size: int = 10) -> list[Message]:
    return [(b"topic/%d" % number, bytes([number % 251]) * size)]


def put(spool: Spool, number: int, size: int = 10, tenant: TenantId = ONE) -> None:
    spool.append(number, {tenant: MessageCounts(1, number % 2)}, record(number, size))


def drain(spool: Spool) -> list[int]:
    out = []
    while first := spool.first():
        assert first.messages == record(first.head.received, len(first.messages[0][1]))
        out.append(first.head.received)
        spool.remove_first()
    return out


@contextmanager
def broken(fault: str) -> Iterator[None]:
    """Simulate a disk that becomes full halfway through a write, or one that cannot sync."""
    write, sync = os.write, os.fdatasync

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    patched = pytest.MonkeyPatch()
    if fault == "full":
        patched.setattr("iotistica.storage.delivery.spool.os.write", half)
    else:
        patched.setattr("iotistica.storage.delivery.spool.os.fdatasync", fails)
    try:
        yield
    finally:
        patched.undo()
    assert (os.write, os.fdatasync) == (write, sync)


class SpoolMachine(RuleBasedStateMachine):
    """Compare the spool with a list through appends, reads, crashes at any byte, and full and failing disks."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iotistica-spool-"))
        self.kept: list[int] = []  # acknowledged and not removed
        self.number = 0
        self.spool = Spool(self.folder / "s", cap=1 << 20, segment=400)

    @rule(size=st.integers(0, 300))
    def append(self, size: int) -> None:
        self.number += 1
        put(self.spool, self.number, size)
        self.kept.append(self.number)

    @rule(fault=st.sampled_from(["full", "sync"]), size=st.integers(0, 300))
    def append_fails(self, fault: str, size: int) -> None:
        self.number += 1
        with broken(fault), pytest.raises(Unavailable):
            put(self.spool, self.number, size)
        assert self.spool.error

    @precondition(lambda self: self.kept)
    @rule(count=st.integers(1, 4))
    def replay(self, count: int) -> None:
        for _ in range(min(count, len(self.kept))):
            first = self.spool.first()
            assert first is not None
            assert first.head.received == self.kept.pop(0)
            self.spool.remove_first()

    @rule(torn=st.binary(max_size=60), forget=st.booleans())
    def crash(self, torn: bytes, forget: bool) -> None:
        """The process is killed while it writes a frame; with `forget`, the file with the read position is damaged too."""
        self.spool.close()
        segments = sorted((self.folder / "s").glob("*.segment"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(torn)
        position = self.folder / "s" / "position"
        if forget and position.exists():
            position.write_bytes(torn)
        self.spool = Spool(self.folder / "s", cap=1 << 20, segment=400)
        if forget:  # records of the first segment can come again: skip those that were read before
            while (first := self.spool.first()) and (not self.kept or first.head.received < self.kept[0]):
                self.spool.remove_first()

    @invariant()
    def nothing_is_missing(self) -> None:
        assert self.spool.messages == len(self.kept)
        assert self.spool.ordered.total() == sum(number % 2 for number in self.kept)
        first = self.spool.first()
        assert (first.head.received if first else None) == (self.kept[0] if self.kept else None)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert drain(self.spool) == self.kept
            assert self.spool.bytes == 0
            assert not list((self.folder / "s").glob("*.segment"))
            self.spool.close()
            shutil.rmtree(self.folder)


TestSpoolMachine = SpoolMachine.TestCase


def test_a_position_is_found_again_in_a_damaged_file_that_is_too_long(tmp_path: Path) -> None:
    """Otherwise every later start would read messages again that were already replayed."""
    folder = tmp_path / "s"
    spool = Spool(folder, cap=1 << 20, segment=400)
    put(spool, 1, 0)
    put(spool, 2, 0)
    (folder / "position").write_bytes(bytes(30))
    spool.first()
    spool.remove_first()
    spool.close()
    assert drain(Spool(folder, cap=1 << 20, segment=400)) == [2]


TestSpoolMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@settings(max_examples=60)
@given(cut=st.integers(0, 400))
def test_it_survives_a_kill_at_any_byte(cut: int) -> None:
    """From a file cut at any byte, every whole frame is read back, and new frames can be appended."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), cap=1 << 20)
        ends = []
        for number in range(5):
            put(spool, number)
            ends.append(spool.bytes)
        spool.close()
        (path,) = Path(folder).glob("*.segment")
        os.truncate(path, min(cut, ends[-1]))
        again = Spool(Path(folder), cap=1 << 20)
        put(again, 99)
        assert drain(again) == [number for number, end in enumerate(ends) if end <= cut] + [99]
        again.close()


@settings(max_examples=80)
@given(at=st.floats(0, 1, exclude_max=True), live=st.booleans())
def test_a_damaged_record_costs_itself_alone(at: float, live: bool) -> None:
    """After any byte is flipped, even in a length, all other records are read back and the file is kept."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), cap=1 << 20)
        ends = []
        for number in range(5):
            put(spool, number)
            ends.append(spool.bytes)
        (path,) = Path(folder).glob("*.segment")
        data = bytearray(path.read_bytes())
        hit = int(at * len(data))
        data[hit] ^= 0xFF
        path.write_bytes(data)
        if not live:
            spool.close()
            spool = Spool(Path(folder), cap=1 << 20)
        for number in (5, 6):
            put(spool, number)
        lost = next(number for number, end in enumerate(ends) if hit < end)
        assert drain(spool) == [number for number in range(7) if number != lost]
        assert (spool.messages, spool.ordered.total(), spool.bytes) == (0, 0, 0)
        assert spool.damaged == 1
        assert len(list(Path(folder).glob("*.damaged"))) == 1
        spool.close()


def test_it_is_bounded_and_never_drops(tmp_path: Path) -> None:
    """A spool at its cap raises `Full` and keeps its records; after some were read it accepts more."""
    spool = Spool(tmp_path, cap=1000, segment=300)
    number = 0
    with pytest.raises(Full, match="at its cap"):
        while True:
            put(spool, number, 100)
            number += 1
    assert spool.bytes <= 1000
    assert spool.messages == number
    for _ in range(3):
        assert spool.first()
        spool.remove_first()
    put(spool, number, 100)
    assert drain(spool) == list(range(3, number + 1))
    spool.close()


def test_two_processes_have_two_folders(tmp_path: Path) -> None:
    """Each process writes to its own spool folder, and can reuse a folder that another process has closed."""
    one, two = Spool(tmp_path / "s", cap=100), Spool(tmp_path / "s", cap=100)
    assert one.folder.path != two.folder.path
    one.close()
    three = Spool(tmp_path / "s", cap=100)
    assert three.folder.path == one.folder.path
    two.close()
    three.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder that cannot be written to fails at startup, and the error names the setting to change."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="IOTISTICA_SPOOL_DIR"):
        Spool(tmp_path / "file" / "s", cap=100)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from iotistica.errors import Unavailable
from iotistica.storage.delivery.spool_segment import MessageCounts
from iotistica.storage.delivery.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]), cap=1 << 30)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
kept = 0
try:
    while True:
        spool.append(kept, {"a" * 12: MessageCounts(1, 0)}, [(b"t", b"x" * 3000)])
        kept += 1
except Unavailable as exc:
    print(kept, exc)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append(kept, {"a" * 12: MessageCounts(1, 0)}, [(b"t", b"x" * 3000)])
"""


def test_a_disk_that_takes_no_more_is_said_and_recovered_from(tmp_path: Path) -> None:
    """A write that the kernel cuts short raises an error with the reason; with free space, appending works again."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    kept = int(done.stdout.split()[0])
    assert "File too large" in done.stdout
    spool = Spool(tmp_path, cap=1 << 30)
    received = []
    while first := spool.first():
        received.append(first.head.received)
        spool.remove_first()
    assert received == list(range(kept + 1))
    spool.close()


def test_no_payload_poses_as_a_record(tmp_path: Path) -> None:
    """An agent can send any bytes: frames of another spool inside a payload are never read as records."""
    forger = Spool(tmp_path / "forger", cap=1 << 20)
    forger.append(1, {TWO: MessageCounts(1, 1)}, [(b"i/of/another/tenant", b"forged")])
    (forged,) = (tmp_path / "forger").glob("*.segment")
    payload = forged.read_bytes() * 200 + spool_frames.MAGIC * 5000
    forger.close()
    spool = Spool(tmp_path / "s", cap=1 << 20)
    spool.append(1, {ONE: MessageCounts(1, 0)}, [(b"t", payload)])
    put(spool, 2)
    spool.close()
    (path,) = (tmp_path / "s").glob("*.segment")
    data = bytearray(path.read_bytes())
    data[2] ^= 0xFF  # damage the first frame, so that the spool searches for the next one
    path.write_bytes(data)
    again = Spool(tmp_path / "s", cap=1 << 20)
    assert (again.waiting[TWO], drain(again), again.damaged) == (0, [2], 1)
    again.close()


def test_an_identity_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    """An id file that is empty, invalid or truncated is replaced by a new identity."""
    spool = Spool(tmp_path / "s", cap=100)
    first = spool.folder.identity
    spool.close()
    for content in (b"", b"\xff\xfe", first[:7].encode()):
        (tmp_path / "s" / "id").write_bytes(content)
        spool = Spool(tmp_path / "s", cap=100)
        assert spool.folder.identity not in ("", first, first[:7])
        spool.close()
