"""The data folder: its lock, the folder of the embedded servers, and the key from which all secrets derive."""

import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from loguru import logger

from iotistica.errors import CannotStart

ROOT_FOLDER: Final = Path("/var/lib/iotistica")
USERS: Final = ("iotistica", "postgres", "nobody")  # as root, servers run as the first of these that exists


class ServerUser(msgspec.Struct, frozen=True):
    """The user that servers run as when this process runs as root."""

    uid: int
    gid: int
    name: str


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and process ids of a running instance, for other commands on the same data folder."""

    pid: int
    database_url: str
    redis_url: str
    mqtt_url: str
    children: dict[str, int]
    settings: dict[str, Any] = {}
    """The instance's settings without secrets and URLs, which can have passwords."""


class DataFolder(msgspec.Struct, frozen=True):
    path: Path
    servers: Path
    owner: ServerUser | None

    def folder(self, name: str) -> Path:
        """Create a server's folder, owned by the user that runs the server, and return its path."""
        folder = self.servers / name
        folder.mkdir(mode=0o700, exist_ok=True)
        self.give(folder)
        return folder

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Replace a file of a server atomically, so that no reader sees half of it."""
        temporary = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
        self.give(temporary)
        temporary.replace(path)

    def give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, self.owner.uid, self.owner.gid)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Lock the data folder for the block; raises `CannotStart` if another instance holds the lock.

    The lock ends with the process, so a crash leaves nothing behind.
    """
    _make(path)
    with (path / "lock").open("a+") as lock:
        for delay in (0.05,) * 10 + (0.0,):  # `is_claimed` of another command holds the lock for an instant
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(delay)
        else:
            raise CannotStart(
                f"The data folder {path} is in use by another instance"
                f" (process {_first_line(path / 'lock') or 'unknown'})."
                " Stop that instance, or set IOTISTICA_DATA_DIR to another folder."
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_claimed(path: Path) -> bool:
    """Whether an instance runs on this data folder."""
    try:
        with (path / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def runtime(path: Path) -> Runtime | None:
    """Return what the instance on this folder wrote about itself; None if no instance runs."""
    if not is_claimed(path):
        return None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((path / "runtime.json").read_bytes(), type=Runtime)
    return None


def open_home(path: Path) -> DataFolder:
    """Prepare the folder of the servers; call this only while the data folder is claimed."""
    owner = _owner(path / "servers") if os.geteuid() == 0 else None
    if owner is None or _reaches(owner, path):
        servers = path / "servers"
    else:
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
        servers = ROOT_FOLDER / f"{path.parent.name or 'root'}-{digest}"
        logger.bind(folder=str(servers), user=owner.name).info(
            f"the user {owner.name} cannot reach {path}: the servers' data is stored in another folder"
        )
        ROOT_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (path / "servers").symlink_to(servers)
    servers.mkdir(mode=0o700, exist_ok=True)
    home = DataFolder(path, servers, owner)
    home.give(servers)
    return home


def server_key(path: Path) -> bytes:
    """Return the 32-byte key from which every password and token key derives; the first start creates it."""
    _make(path)
    file = path / "server.key"
    if not file.exists():
        temporary = file.with_name(f".server.key.{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32) + "\n")
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(temporary)  # atomic: of two processes, the first wins
        temporary.unlink()
    return parse_key(file.read_text().strip(), str(file))


def parse_key(text: str, source: str) -> bytes:
    """Return the key written as 64 hex characters; raises `CannotStart` if the text is anything else."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise CannotStart(f"{source} must hold 64 hex characters. Create a key with `openssl rand -hex 32`.")
    return key


def within_reach(home: DataFolder, folder: Path, name: str) -> Path:
    """Return a folder of programs that the servers' user can reach: `folder` itself, or else a copy of it."""
    if home.owner is None or _reaches(home.owner, folder):
        return folder
    copy = ROOT_FOLDER / "bin" / name
    if not copy.is_dir():
        logger.bind(folder=str(copy)).info(f"the user {home.owner.name} cannot reach {folder}: copying it")
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(folder, temporary, symlinks=True)
        temporary.rename(copy)
    return copy


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as exc:
        raise CannotStart(
            f"Cannot create the data folder {path}: {exc.strerror}. Set IOTISTICA_DATA_DIR to another folder."
        ) from exc
    if not os.access(path, os.W_OK | os.X_OK):
        raise CannotStart(f"Cannot write to the data folder {path}. Set IOTISTICA_DATA_DIR to another folder.")


def _owner(servers: Path) -> ServerUser:
    """Return the owner of the existing data, else the first of `USERS` that exists."""
    if servers.exists() and (uid := servers.stat().st_uid) != 0:
        entry = pwd.getpwuid(uid)
        return ServerUser(entry.pw_uid, entry.pw_gid, entry.pw_name)
    for name in USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(entry.pw_uid, entry.pw_gid, entry.pw_name)
    raise CannotStart(
        f"PostgreSQL does not run as root, and none of the users {', '.join(USERS)} exists. Create one of them."
    )


def _reaches(owner: ServerUser, folder: Path) -> bool:
    command = ["/usr/bin/test", "-x", str(folder)]
    return subprocess.run(command, user=owner.uid, group=owner.gid, extra_groups=[], check=False).returncode == 0


def _first_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().partition("\n")[0]
    return ""
