"""Runs an ASGI application on uvicorn, as a task group that ends on an event."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from litestar import Litestar
from loguru import logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from iotistica.errors import CannotStart

GRACE: Final = 5  # seconds for requests in flight
CONNECTIONS: Final = 2000
BACKLOG: Final = 1024
HEAD_SECONDS: Final = 10.0  # from the connection, or the first byte, to the end of the headers
BODY_SECONDS: Final = 120.0  # from there to the end of the body


class _Protocol(HttpToolsProtocol):
    """Closes a connection whose request does not come: uvicorn waits for ever, and connections are bounded."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._expect(BODY_SECONDS)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._expect(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._expect(None)
        super().handle_websocket_upgrade()

    def _expect(self, seconds: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            self._due = self.loop.call_later(seconds, self.transport.close)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the supervisor's


async def serve(
    app: Litestar, stop: asyncio.Event, *, host: str, port: int, setting: str, proxies: str = ""
) -> None:
    """Serve until `stop`; raises `CannotStart` when the address is taken. `setting` names what to change.

    `proxies`, by commas, are those whose word for a caller's address is taken.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    server = _Server(config)
    with _bound(host, port, setting) as listener:
        logger.bind(address=f"{host}:{port}").info("HTTP is open")
        ending = asyncio.create_task(_end(server, stop), name="http stop")
        try:
            await server.serve(sockets=[listener])
        finally:
            ending.cancel()


async def _end(server: Any, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def _bound(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise CannotStart(
            f"cannot listen on {host}:{port} ({exc.strerror}); set {setting} to another port"
        ) from exc
    listener.setblocking(False)
    return listener
