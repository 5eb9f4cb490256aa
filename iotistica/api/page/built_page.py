"""The files of the dashboard as they were built, in memory, in the codings that browsers accept."""

import fcntl
import hashlib
import time
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

CHECK_SECONDS: Final = 1.0  # between two looks for a newer build
SUFFIXES: Final = {"br": ".br", "gzip": ".gz"}
"""The suffixes of the compressed copies that the build makes."""
ENDED_EARLY: Final = "The build was ended before it was done. Start it again: python3 web/build.py"
MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class BuildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the build in a checkout is doing; an installed package has no status, since it was built before."""

    state: Literal["building", "failed", "absent"]
    detail: str = ""
    """What is being done, or why it failed and what helps."""


class PageFile(NamedTuple):
    """A file of the page: its media type, its ETag, and its bytes by coding (`""` is uncompressed)."""

    media_type: str
    etag: str
    bodies: dict[str, bytes]


class BuiltPage:
    """The built page in a folder. A build that ends while the process runs is noticed within a second."""

    def __init__(self, folder: Path, status_file: Path) -> None:
        self._folder = folder
        self._status_file = status_file
        self._files: dict[str, PageFile] = {}
        self._built: tuple[int, int] | None = None
        """Modification time and inode of the file that was read last."""
        self._checked = 0.0

    def file(self, name: str) -> PageFile | None:
        """Return a file by its path in the folder, such as `index.html`; None if there is none."""
        now = time.monotonic()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            self._reload()
        return self._files.get(name)

    def status(self) -> BuildStatus:
        """Return what the build is doing while there is no page."""
        try:
            status = msgspec.json.decode(self._status_file.read_bytes(), type=BuildStatus)
        except (OSError, msgspec.MsgspecError):
            return BuildStatus(state="absent")
        if status.state == "building" and not _is_locked(self._status_file.with_name("lock")):
            return BuildStatus(state="failed", detail=ENDED_EARLY)
        return status

    def _reload(self) -> None:
        try:
            stat = (self._folder / "index.html").stat()
            if (built := (stat.st_mtime_ns, stat.st_ino)) == self._built:
                return
            self._files, self._built = _read(self._folder), built
        except OSError:  # the build is just replacing the folder: look again later
            return


def page_folders() -> tuple[Path, Path]:
    """Return the folder of the built page, in the wheel or in a checkout, and the file with the build's status."""
    packaged = Path(__file__).parents[2] / "_page"
    if packaged.is_dir():
        return packaged, packaged / "status.json"
    web = Path(__file__).parents[3] / "web"
    return web / "dist", web / ".build" / "status.json"


def _is_locked(lock: Path) -> bool:
    """Whether a build holds its lock: the system takes it from a process that is killed."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(folder: Path) -> dict[str, PageFile]:
    return {
        path.relative_to(folder).as_posix(): _file(path)
        for path in folder.rglob("*")
        if path.suffix in MEDIA_TYPES and path.is_file()
    }


def _file(path: Path) -> PageFile:
    bodies = {"": path.read_bytes()}
    for coding, suffix in SUFFIXES.items():
        compressed = path.with_name(path.name + suffix)
        if compressed.is_file():
            bodies[coding] = compressed.read_bytes()
    digest: Any = hashlib.sha256(bodies[""])
    return PageFile(MEDIA_TYPES[path.suffix], digest.hexdigest()[:32], bodies)
