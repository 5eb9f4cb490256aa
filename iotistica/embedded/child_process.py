"""A child server process, started so that it ends when this process ends, whatever the cause."""

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

LOG_CAP: Final = 10 << 20  # bytes of a child's log; a larger log is emptied
PR_SET_PDEATHSIG: Final = 1
START_SECONDS: Final = 60.0  # PostgreSQL can need long to recover
LISTENING: Final = 20_000  # lowest port for servers; their range ends where that of outgoing connections begins
TRIES: Final = 100  # ports to try
STOP_SECONDS: Final = 15.0


class ChildProcess:
    """One server process: starts it, waits until it is ready, and stops it."""

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
        """`death_signal` is what the kernel sends to the child if this process dies without stopping it."""
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
        """Start the process without waiting for it; `await_ready` waits until it answers."""
        owner = self._home.owner
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home.servers,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal goes to this process, not to its children
                preexec_fn=kill_with_parent(self._death_signal),  # noqa: PLW1509 no thread holds locks at this point
                user=owner.uid if owner else None,
                group=owner.gid if owner else None,
                extra_groups=[] if owner else None,
                umask=0o077,
            )

    def await_ready(self) -> None:
        """Wait until the server is ready; raises `CannotStart` with the end of its log."""
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if not self.is_running():
                raise CannotStart(f"The server {self.name} ended during its start. Its log: {self.log_tail()}")
            if time.monotonic() > end:
                raise CannotStart(
                    f"The server {self.name} was not ready within {START_SECONDS:.0f} s. Its log: {self.log_tail()}"
                )
            time.sleep(0.01)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str:
        """How the process ended: the signal or the exit code, as text."""
        code = self._process.returncode if self._process else None
        return f"signal {-code}" if code is not None and code < 0 else f"code {code}"

    def signal(self, sign: signal.Signals) -> None:
        if self._process is not None and self.is_running():
            self._process.send_signal(sign)

    def stop(self) -> None:
        """Send the stop signal, wait for the end, and kill the process after `STOP_SECONDS`."""
        if self._process is None:
            return
        self.signal(self._stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.bind(server=self.name).warning("server did not stop in time; killed")
            self._process.kill()
            self._process.wait()

    def bound_log(self) -> None:
        """Empty the log if it is larger than `LOG_CAP`."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_CAP:
                os.truncate(self._log, 0)

    def log_tail(self) -> str:
        """Return the last four lines of its log, joined into one."""
        with contextlib.suppress(OSError):
            return " | ".join(self._log.read_text(errors="replace").splitlines()[-4:])
        return "(no log)"


def kill_with_parent(sign: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes the kernel send a child this signal when its parent dies; Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
        if os.getppid() != parent:  # the parent died between the fork and the call
            os._exit(1)

    return before_exec


def end_leftovers(pids: Mapping[str, int], marker: str) -> None:
    """End children of an earlier instance that was killed, if the kernel has not ended them.

    `marker` is the servers' folder, which shows that a process is such a child. Sends SIGTERM after 1 s, SIGKILL
    after `STOP_SECONDS`.
    """
    end = time.monotonic() + STOP_SECONDS
    left = {pid for pid in pids.values() if _is_child(pid, marker)}
    is_terminated = False
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = {pid for pid in left if _is_child(pid, marker)}
        if left and not is_terminated and time.monotonic() > end - STOP_SECONDS + 1:
            is_terminated = True
            for pid in left:
                os.kill(pid, signal.SIGTERM)
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def _is_child(pid: int, marker: str) -> bool:
    try:
        # Valkey rewrites its command line, so the working directory counts too: every child runs in the folder.
        is_named = marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return is_named or Path(f"/proc/{pid}/cwd").readlink().is_relative_to(marker)
    except OSError:
        return False


def free_port() -> int:
    """Return a free port on loopback, below the range of outgoing connections, so that none occupies it meanwhile.

    Raises `CannotStart` if no port is found.
    """
    lowest = _lowest_outgoing_port()
    for _ in range(TRIES):
        port = LISTENING + secrets.randbelow(lowest - LISTENING) if lowest > LISTENING else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise CannotStart("No free port was found on the loopback interface.")


def _lowest_outgoing_port() -> int:
    """Return the lowest port that the kernel uses for outgoing connections; 0 if it is unknown."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 0


def accepts(host: str, port: int) -> bool:
    """Whether a server accepts TCP connections at this address."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
