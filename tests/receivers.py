"""A real HTTP receiver and a real mail server on loopback, which record what they get and misbehave on demand."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any, NamedTuple

import msgspec
from aiosmtpd.controller import Controller


class Received(NamedTuple):
    at: float
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[Received, socket.socket], None]
"""Answers a request on its connection, or not."""


def status(code: int, *headers: str) -> Answer:
    """Answer with a status and no body."""

    def answer(_: Received, connection: socket.socket) -> None:
        lines = "".join(f"{header}\r\n" for header in headers)
        connection.sendall(f"HTTP/1.1 {code} x\r\nContent-Length: 0\r\n{lines}\r\n".encode())

    return answer


class Receiver:
    """Takes POST requests; `answers` are by path, and 200 for all others."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: dict[str, Answer] = {}
        self.opened = 0
        """Connections, whatever was sent over them."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def of(self, path: str) -> list[Received]:
        """What came to a path."""
        return [received for received in list(self.received) if received.path == path]

    def has(self, path: str, number: int) -> bool:
        """Whether so many requests came to a path."""
        return len(self.of(path)) >= number

    def has_ids(self, number: int) -> bool:
        """Whether messages with so many different ids came."""
        return len({received.id for received in list(self.received)}) >= number

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.opened += 1
                threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            content = b""
            while b"\r\n\r\n" not in content:
                if not (chunk := connection.recv(65_536)):
                    return
                content += chunk
            head, _, raw = content.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
            while len(raw) < int(headers.get("content-length", 0)):
                raw += connection.recv(65_536)
            received = Received(time.time(), first.split()[1], headers, raw)
            self.received.append(received)
            self.answers.get(received.path, status(200))(received, connection)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    running = Receiver()
    try:
        yield running
    finally:
        running.close()


class Mailbox:
    """Keeps the e-mails that a mail server on loopback takes."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[list[str]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.recipients.append(list(envelope.rcpt_tos))
        message = BytesParser(policy=default).parsebytes(envelope.content)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 taken"


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[str, Mailbox]]:
    """A running mail server: its URL, and what it takes."""
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield f"smtp://127.0.0.1:{port}", mailbox
    finally:
        controller.stop()
