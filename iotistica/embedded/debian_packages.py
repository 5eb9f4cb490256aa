"""Unpacks Mosquitto from Debian's packages into a folder, without installing it.

Installing it would start Debian's own broker on the port that agents use.
"""

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.errors import CannotStart

PACKAGE: Final = "mosquitto"
HELP: Final = (
    "Mosquitto is not installed. Install it (Debian: `apt-get install mosquitto`, then"
    " `systemctl disable --now mosquitto`), or set IOTISTICA_MQTT_URL to a broker."
)
SECONDS: Final = 120


def unpack(folder: Path) -> Path:
    """Download and unpack Mosquitto and the dependencies that this system lacks; return the program's path."""
    program = folder / "root" / "usr" / "sbin" / PACKAGE
    if program.exists():
        return program
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two instances can start at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _fetch(folder)
    return program


def _fetch(folder: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise CannotStart(HELP)
    logger.bind(folder=str(folder)).info("fetching Mosquitto from Debian's packages")
    debs = folder / "debs"
    try:
        _download(["apt-get"], debs)
    except CannotStart:  # the system's lists are missing or too old; lists in this folder need no root rights
        apt = _own_apt(folder)
        _run([*apt, "update"], folder)
        _download(apt, debs)
    temporary = folder / "root.new"
    shutil.rmtree(temporary, ignore_errors=True)
    for deb in sorted(debs.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(deb), str(temporary)], folder)
    temporary.rename(folder / "root")
    shutil.rmtree(debs)


def _download(apt: list[str], debs: Path) -> None:
    names = _needed(apt, debs)
    if not names:
        raise CannotStart(f"apt cannot find the package {PACKAGE}. {HELP}")
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir(parents=True)
    _run([*apt, "download", *names], debs)


def library_path(root: Path) -> str:
    """Return the folders of the unpacked libraries, joined with colons for LD_LIBRARY_PATH."""
    folders = sorted({str(file.parent) for base in ("lib", "usr/lib") for file in (root / base).rglob("*.so*")})
    return ":".join(folders)


def _own_apt(folder: Path) -> list[str]:
    """Return an apt-get command that keeps its package lists in `folder`."""
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    options = {"Dir::State::Lists": state / "lists", "Dir::Cache": state / "cache"}
    # Without this option apt would switch to a user that may be unable to reach the folder.
    return ["apt-get", "-o", "APT::Sandbox::User=", *(f"-o{name}={value}" for name, value in options.items())]


def _needed(apt: list[str], folder: Path) -> list[str]:
    """Return the names of the package and of the dependencies that this system lacks, as apt would install them."""
    plan = _run([*apt, "install", "--simulate", "-qq", "-o", "APT::Install-Recommends=0", PACKAGE], folder)
    return [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]


def _run(command: list[str], folder: Path) -> str:
    """Run a program in a folder and return its standard output; raises `CannotStart` if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise CannotStart(f"{command[0]} took longer than {SECONDS} s. {HELP}") from exc
    if done.returncode:
        output = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CannotStart(f"`{command[0]} {command[-1]}` failed: {output}. {HELP}")
    return done.stdout
