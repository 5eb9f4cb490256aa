"""The folder of a spool: locked by one process, which records in it how far it has read."""

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

FOLDERS_LIMIT: Final = 16  # spools next to each other, one for each process of this machine
_IDENTITY: Final = re.compile("[0-9a-f]{16}")
_POSITION: Final = struct.Struct(">QQI")


class SpoolFolder:
    """A spool folder, locked until `close`."""

    def __init__(self, path: Path) -> None:
        """Lock this folder, or one next to it if another process of this machine has it; raises `CannotStart`."""
        self.path, self._lock = _lock_folder(path)
        self.identity = self._identity()

    def _identity(self) -> str:
        """Return the id of this spool, unique even if another machine or container mounts its disk."""
        path = self.path / "id"
        try:
            if path.exists() and _IDENTITY.fullmatch(identity := path.read_bytes().decode("ascii", "replace")):
                return identity
            identity = secrets.token_hex(8)
            path.with_suffix(".new").write_text(identity)
            path.with_suffix(".new").replace(path)
        except OSError as exc:
            raise CannotStart(f"Cannot write to {self.path}: {exc.strerror}.") from exc
        return identity

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    def sync(self) -> None:
        """Flush the folder's directory entries, the names of its files, to the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> int:
        """Return the free bytes of the disk; 0 if they cannot be read."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize

    def takes_writes(self) -> bool:
        """Whether a page can be written to the disk now."""
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

    def save_position(self, number: int, offset: int) -> None:
        """Record how far a segment was read, so that the next process does not read it again from its start."""
        fields = struct.pack(">QQ", number, offset)
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path / "position", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, _POSITION.pack(number, offset, zlib.crc32(fields)), 0)
            finally:
                os.close(descriptor)

    def saved_position(self) -> tuple[int, int] | None:
        """Return the recorded segment number and offset; None if there is no valid record."""
        with contextlib.suppress(OSError, struct.error):
            # A damaged file can be longer than the record that `save_position` wrote over its beginning.
            record = (self.path / "position").read_bytes()[: _POSITION.size]
            number, offset, check = _POSITION.unpack(record)
            if zlib.crc32(struct.pack(">QQ", number, offset)) == check:
                return number, offset
        return None


def remove(path: Path) -> None:
    """Delete a file that was read; if that fails, the next process reads the file again."""
    try:
        path.unlink()
    except OSError as exc:
        log = logger.bind(file=str(path), error=exc.strerror)
        log.warning("cannot delete a file that was read; it will be read again")


def _lock_folder(folder: Path) -> tuple[Path, int]:
    """Lock the folder, or one next to it if another process has it; return the path and the lock's descriptor."""
    for number in range(FOLDERS_LIMIT):
        path = folder.with_name(f"{folder.name}-{number + 1}") if number else folder
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise CannotStart(
                f"Cannot write to {path} ({exc.strerror}); set IOTISTICA_SPOOL_DIR to a persistent folder."
            ) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        return path, descriptor
    raise CannotStart(
        f"{FOLDERS_LIMIT} processes have spools in {folder.parent}; set IOTISTICA_SPOOL_DIR to another folder."
    )
