"""The folder of a spool: one process has it, and notes there how far it has read."""

import contextlib
import fcntl
import os
import re
import secrets
import struct
import zlib
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.errors import CannotStart

FOLDERS_LIMIT: Final = 16  # spools side by side, one for each process of this machine
_IDENTITY: Final = re.compile("[0-9a-f]{16}")
_POSITION: Final = struct.Struct(">QQI")


class SpoolFolder:
    """Locked for as long as this process has it."""

    def __init__(self, path: Path) -> None:
        """This folder, or one beside it where another process of this machine has it; raises `CannotStart`."""
        self.path, self._claim = _claimed(path)
        self.identity = self._identity()

    def _identity(self) -> str:
        """What tells this spool from all others, also when another machine or container has its disk."""
        path = self.path / "id"
        try:
            if path.exists() and _IDENTITY.fullmatch(found := path.read_bytes().decode("ascii", "replace")):
                return found
            new = secrets.token_hex(8)
            path.with_suffix(".new").write_text(new)
            path.with_suffix(".new").replace(path)
        except OSError as exc:
            raise CannotStart(f"cannot write to {self.path}: {exc.strerror}") from exc
        return new

    def close(self) -> None:
        """Let it go."""
        os.close(self._claim)

    def sync(self) -> None:
        """Have the names of its files on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> int:
        """Bytes that the disk has left."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize

    def takes_writes(self) -> bool:
        """Whether the disk takes a page now."""
        path = self.path / "check"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, bytes(4096))
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink()
        except OSError:
            return False
        return True

    def note(self, number: int, offset: int) -> None:
        """Spare the next process what was read of a segment; if this is lost, it is read again."""
        fields = struct.pack(">QQ", number, offset)
        with contextlib.suppress(OSError):
            note = os.open(self.path / "position", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(note, _POSITION.pack(number, offset, zlib.crc32(fields)), 0)
            finally:
                os.close(note)

    def noted(self) -> tuple[int, int] | None:
        """Number and offset of the last note."""
        with contextlib.suppress(OSError, struct.error):
            number, offset, check = _POSITION.unpack((self.path / "position").read_bytes())
            if zlib.crc32(struct.pack(">QQ", number, offset)) == check:
                return number, offset
        return None


def remove(path: Path) -> None:
    """Remove a file that was read; one that stays is read again by the next process."""
    try:
        path.unlink()
    except OSError as exc:
        logger.bind(file=str(path), error=exc.strerror).warning("cannot remove what was read; it is read again")


def _claimed(folder: Path) -> tuple[Path, int]:
    """The folder, or one beside it where another process of this machine has that one, and the lock on it."""
    for number in range(FOLDERS_LIMIT):
        path = folder.with_name(f"{folder.name}-{number + 1}") if number else folder
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise CannotStart(
                f"cannot write to {path} ({exc.strerror}): set IOTISTICA_SPOOL_DIR to a folder on a disk that lasts"
            ) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        return path, descriptor
    raise CannotStart(
        f"{FOLDERS_LIMIT} processes have spools in {folder.parent}: give this one IOTISTICA_SPOOL_DIR"
    )
