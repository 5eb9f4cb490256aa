"""Mosquitto from Debian's packages, unpacked into a folder and never installed.

Installing it would start Debian's own broker on the port gateways use.
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
    "there is no Mosquitto: install it (Debian: `apt-get install mosquitto`, then"
    " `systemctl disable --now mosquitto`), or set IOTISTICA_MQTT_URL to a broker"
)
SECONDS: Final = 120


def unpack(folder: Path) -> Path:
    """Download Mosquitto and what it needs beyond this system, and unpack it; returns the program's path."""
    program = folder / "root" / "usr" / "sbin" / PACKAGE
    if program.exists():
        return program
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two instances may start at a time
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
    except CannotStart:  # the system's lists are missing, or too old; ours need no rights
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
        raise CannotStart(f"apt knows no package {PACKAGE}; {HELP}")
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir(parents=True)
    _run([*apt, "download", *names], debs)


def library_path(root: Path) -> str:
    """Where the libraries that were unpacked with the program lie."""
    folders = sorted({str(file.parent) for base in ("lib", "usr/lib") for file in (root / base).rglob("*.so*")})
    return ":".join(folders)


def _own_apt(folder: Path) -> list[str]:
    """apt-get with package lists of its own."""
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    options = {"Dir::State::Lists": state / "lists", "Dir::Cache": state / "cache"}
    # Without this apt would drop to a user that may not reach our folder.
    return ["apt-get", "-o", "APT::Sandbox::User=", *(f"-o{name}={value}" for name, value in options.items())]


def _needed(apt: list[str], folder: Path) -> list[str]:
    """The package and those of its dependencies that this system lacks, as apt would install them."""
    plan = _run([*apt, "install", "--simulate", "-qq", "-o", "APT::Install-Recommends=0", PACKAGE], folder)
    return [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]


def _run(command: list[str], folder: Path) -> str:
    """Run a program in a folder; what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise CannotStart(f"{command[0]} took longer than {SECONDS} s; {HELP}") from exc
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CannotStart(f"`{command[0]} {command[-1]}` failed: {words}; {HELP}")
    return done.stdout
