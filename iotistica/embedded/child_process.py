"""A child server: started so that it ends with us, whatever ends us."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.embedded.data_folder import DataFolder
from iotistica.errors import CannotStart

LOG_CAP: Final = 10 << 20  # bytes of a child's log; emptied beyond
PR_SET_PDEATHSIG: Final = 1
START_SECONDS: Final = 60.0  # PostgreSQL may have a lot to recover
LISTENING: Final = 20_000  # from here on ports are given to servers, up to those of outgoing connections
TRIES: Final = 100  # ports
STOP_SECONDS: Final = 15.0


class ChildProcess:
    """One server process and how to start, await and stop it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        home: DataFolder,
        is_ready: Callable[[], bool],
        stop_signal: signal.Signals,
        death_signal: signal.Signals,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`death_signal` is what the kernel sends it should we die without a word."""
        self.name = name
        self._command = list(command)
        self._home = home
        self._is_ready = is_ready
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **(environment or {})}
        self._log = home.servers / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it; `await_ready` tells when it answers."""
        owner = self._home.owner
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home.servers,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal is for us, not for our children
                preexec_fn=dies_with_us(self._death_signal),  # noqa: PLW1509 no threads of ours hold locks here
                user=owner.uid if owner else None,
                group=owner.gid if owner else None,
                extra_groups=[] if owner else None,
                umask=0o077,
            )

    def await_ready(self) -> None:
        """Wait until it answers; raises `CannotStart` with the end of its log."""
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if not self.is_running():
                raise CannotStart(f"{self.name} ended at once: {self.last_words()}")
            if time.monotonic() > end:
                raise CannotStart(f"{self.name} was not ready within {START_SECONDS:.0f} s: {self.last_words()}")
            time.sleep(0.01)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str:
        """How it ended: a signal or a code."""
        code = self._process.returncode if self._process else None
        return f"signal {-code}" if code is not None and code < 0 else f"code {code}"

    def signal(self, sign: signal.Signals) -> None:
        if self._process is not None and self.is_running():
            self._process.send_signal(sign)

    def stop(self) -> None:
        """Stop it in its own way, and by force if that takes too long."""
        if self._process is None:
            return
        self.signal(self._stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.bind(server=self.name).warning("did not stop; killed")
            self._process.kill()
            self._process.wait()

    def bound_log(self) -> None:
        """Empty the log once it has grown too large."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_CAP:
                os.truncate(self._log, 0)

    def last_words(self) -> str:
        """The end of its log, in one line."""
        with contextlib.suppress(OSError):
            return " | ".join(self._log.read_text(errors="replace").splitlines()[-4:])
        return "it left no log"


def dies_with_us(sign: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel send a child this signal when we die without a word; for `preexec_fn`."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
        if os.getppid() != parent:  # we died between the fork and the call
            os._exit(1)

    return before_exec


def end_leftovers(pids: Mapping[str, int], marker: str) -> None:
    """End children of an instance that was killed, where the kernel has not done it; `marker` names ours."""
    end = time.monotonic() + STOP_SECONDS
    left = {pid for pid in pids.values() if _is_ours(pid, marker)}
    asked = False
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = {pid for pid in left if _is_ours(pid, marker)}
        if left and not asked and time.monotonic() > end - STOP_SECONDS + 1:
            asked = True
            for pid in left:
                os.kill(pid, signal.SIGTERM)
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def _is_ours(pid: int, marker: str) -> bool:
    try:
        # Valkey rewrites its command line; every child works in our folder.
        is_named = marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return is_named or Path(f"/proc/{pid}/cwd").readlink().is_relative_to(marker)
    except OSError:
        return False


def free_port() -> int:
    """A port on loopback that nobody uses now, and that no outgoing connection takes before its server has it.

    Raises `CannotStart` where none is found.
    """
    lowest = _outgoing()
    for _ in range(TRIES):
        port = LISTENING + secrets.randbelow(lowest - LISTENING) if lowest > LISTENING else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise CannotStart("no port on loopback is free")


def _outgoing() -> int:
    """The first of the ports that the kernel gives to outgoing connections; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 0


def accepts(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
