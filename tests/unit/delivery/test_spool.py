"""The spool on a real disk: whatever happens, what was appended comes back, once and in order."""

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
    while found := spool.first():
        assert found.messages == record(found.head.received, len(found.messages[0][1]))
        out.append(found.head.received)
        spool.remove_first()
    return out


@contextmanager
def broken(fault: str) -> Iterator[None]:
    """A disk that takes half of a write and then no more, or that cannot sync."""
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
    """Appends, reads, crashes at any byte, full and failing disks against a plain list."""

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
            found = self.spool.first()
            assert found is not None
            assert found.head.received == self.kept.pop(0)
            self.spool.remove_first()

    @rule(torn=st.binary(max_size=60), forget=st.booleans())
    def crash(self, torn: bytes, forget: bool) -> None:
        """The process is killed while it writes a frame; the note of what was read may be lost with it."""
        self.spool.close()
        segments = sorted((self.folder / "s").glob("*.segment"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(torn)
        position = self.folder / "s" / "position"
        if forget and position.exists():
            position.write_bytes(torn)
        self.spool = Spool(self.folder / "s", cap=1 << 20, segment=400)
        if forget:  # records of the first segment may come again: skip those that were read before
            while (found := self.spool.first()) and (not self.kept or found.head.received < self.kept[0]):
                self.spool.remove_first()

    @invariant()
    def nothing_is_missing(self) -> None:
        assert self.spool.messages == len(self.kept)
        assert self.spool.ordered.total() == sum(number % 2 for number in self.kept)
        found = self.spool.first()
        assert (found.head.received if found else None) == (self.kept[0] if self.kept else None)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert drain(self.spool) == self.kept
            assert self.spool.bytes == 0
            assert not list((self.folder / "s").glob("*.segment"))
            self.spool.close()
            shutil.rmtree(self.folder)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@settings(max_examples=60)
@given(cut=st.integers(0, 400))
def test_it_survives_a_kill_at_any_byte(cut: int) -> None:
    """A file that ends anywhere gives back every frame that is whole, and takes new ones behind them."""
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
    """Whichever byte was flipped, of a length too: the records around it come back, and the file is kept."""
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
    """At its cap it says so and keeps what it has; once something was read it takes more."""
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
    """Who acknowledges is the only one who writes a spool."""
    one, two = Spool(tmp_path / "s", cap=100), Spool(tmp_path / "s", cap=100)
    assert one.folder.path != two.folder.path
    one.close()
    three = Spool(tmp_path / "s", cap=100)
    assert three.folder.path == one.folder.path
    two.close()
    three.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A read-only disk is said at the start, with the setting that helps."""
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
    """The kernel refuses a write in its middle: an error with its reason, and once there is room it goes on."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    kept = int(done.stdout.split()[0])
    assert "File too large" in done.stdout
    spool = Spool(tmp_path, cap=1 << 30)
    found = []
    while one := spool.first():
        found.append(one.head.received)
        spool.remove_first()
    assert found == list(range(kept + 1))
    spool.close()


def test_no_payload_poses_as_a_record(tmp_path: Path) -> None:
    """A device chooses its bytes: whole frames of another spool inside them, in front of a cut, are only bytes."""
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
    data[2] ^= 0xFF  # its head is damaged, so the next one is looked for
    path.write_bytes(data)
    again = Spool(tmp_path / "s", cap=1 << 20)
    assert (again.waiting[TWO], drain(again), again.damaged) == (0, [2], 1)
    again.close()


def test_an_identity_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    """Two spools never share one, and it lasts."""
    spool = Spool(tmp_path / "s", cap=100)
    first = spool.folder.identity
    spool.close()
    for content in (b"", b"\xff\xfe", first[:7].encode()):
        (tmp_path / "s" / "id").write_bytes(content)
        spool = Spool(tmp_path / "s", cap=100)
        assert spool.folder.identity not in ("", first, first[:7])
        spool.close()
