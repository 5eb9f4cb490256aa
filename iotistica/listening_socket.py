"""The port of a process: bound once, kept while what answers on it starts anew, and handed to its successor."""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

from iotistica.errors import CannotStart
from iotistica.supervise import ENDING

FIRST: Final = 3  # the descriptor of a socket that somebody opened for us, as sd_listen_fds(3) has it
BACKLOG: Final = 4096  # connections that wait while nobody answers; the kernel's net.core.somaxconn bounds it too


def open_socket(host: str, port: int, setting: str, environ: Mapping[str, str]) -> socket.socket:
    """The socket that systemd or a predecessor left open for this process, else a new one, listening.

    Raises `CannotStart` when the address is taken; `setting` names what to change then.
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
            f"cannot listen on {host}:{port} ({exc.strerror}); set {setting} to another port"
        ) from exc
    return listener


def _inherited(count: str) -> socket.socket:
    if count != "1":
        raise CannotStart(f"LISTEN_FDS is {count or 'not set'}: one socket is expected, that of HTTP")
    try:
        listener = socket.socket(fileno=FIRST)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise CannotStart(f"LISTEN_FDS is 1, and descriptor {FIRST} is no socket ({exc.strerror})") from exc
    if not listens or listener.type != socket.SOCK_STREAM:
        raise CannotStart(f"LISTEN_FDS is 1, and descriptor {FIRST} is not a TCP socket that listens")
    os.set_inheritable(FIRST, False)  # the servers that we start must not keep it open
    return listener


def ignore_restart_signal() -> None:
    """Let nobody who asks for a new start end a process that is just starting."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def collect_stop_signals() -> list[int]:
    """Hear the signals that end a process, from now on: none is to start anew after one of them."""
    heard: list[int] = []
    for sign in ENDING:
        signal.signal(sign, lambda number, _: heard.append(number))
    return heard


def restart_process(listener: socket.socket, environ: Mapping[str, str]) -> NoReturn:
    """Become a new process of the same command line and number, which goes on with the socket.

    Whoever connects meanwhile waits in its queue.
    """
    ignore_restart_signal()
    os.dup2(listener.fileno(), FIRST)
    os.set_inheritable(FIRST, True)  # also where it is that one already
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execve(sys.executable, sys.orig_argv, {**environ, **given})  # noqa: S606 our own command line
