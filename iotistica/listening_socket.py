"""The listening socket of a process: opened once, kept across restarts, and passed on to the new process."""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

from iotistica.errors import CannotStart
from iotistica.supervise import ENDING

FIRST: Final = 3  # the file descriptor of an inherited socket, as in sd_listen_fds(3)
BACKLOG: Final = 4096  # connections that can wait during a restart; the kernel's net.core.somaxconn limits it too


def open_socket(host: str, port: int, setting: str, environ: Mapping[str, str]) -> socket.socket:
    """Return the listening socket inherited from systemd or from the process before a restart, or open a new one.

    Raises `CannotStart` if the address is in use; its message names `setting`, the one to change.
    """
    if environ.get("LISTEN_PID") == str(os.getpid()):
        return _inherited(environ.get("LISTEN_FDS", ""))
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise CannotStart(
            f"Cannot listen on {host}:{port} ({exc.strerror}). Set {setting} to another port."
        ) from exc
    return listener


def _inherited(count: str) -> socket.socket:
    if count != "1":
        raise CannotStart(f"LISTEN_FDS is {count or 'not set'}, but must be 1, for the socket of HTTP.")
    try:
        listener = socket.socket(fileno=FIRST)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise CannotStart(f"LISTEN_FDS is 1, but descriptor {FIRST} is not a socket ({exc.strerror}).") from exc
    if not listens or listener.type != socket.SOCK_STREAM:
        raise CannotStart(f"LISTEN_FDS is 1, but descriptor {FIRST} is not a TCP socket that listens.")
    os.set_inheritable(FIRST, False)  # the embedded servers, which are child processes, must not keep it open
    return listener


def ignore_restart_signal() -> None:
    """Ignore SIGUSR2, which requests a restart: by default it would end a process that is still starting."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def collect_stop_signals() -> list[int]:
    """Collect stop signals from now on into the returned list: a process that gets one must not restart."""
    received: list[int] = []
    for sign in ENDING:
        signal.signal(sign, lambda number, _: received.append(number))
    return received


def restart_process(listener: socket.socket, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by a new one with the same command line and process id, which inherits the socket.

    Clients that connect in the meantime wait in the socket's queue.
    """
    ignore_restart_signal()
    os.dup2(listener.fileno(), FIRST)
    os.set_inheritable(FIRST, True)  # dup2 does not do it if the socket already has descriptor FIRST
    variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execve(sys.executable, sys.orig_argv, {**environ, **variables})  # noqa: S606 this process's own command line
