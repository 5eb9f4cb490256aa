"""Serves an ASGI application with uvicorn until an event is set."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp
from loguru import logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from iotistica.api.http.head_requests import HeadRequests
from iotistica.api.http.security_headers import SecurityHeaders
from iotistica.listening_socket import BACKLOG

GRACE: Final = 5  # seconds that requests in flight have to end at a shutdown
LAST: Final = 0.3  # seconds that idle connections stay open at a shutdown, for requests on their way
CONNECTIONS: Final = 20_000  # at once, most of them idle between two requests
MESSAGE: Final = 64 << 10  # bytes of a WebSocket message from a client
HEAD_SECONDS: Final = 10.0  # from the connection, or the first byte, to the end of the headers
BODY_SECONDS: Final = 120.0  # from there to the end of the body
READ_SECONDS: Final = 60.0  # until the client has read what was sent so far


class _Protocol(HttpToolsProtocol):
    """Closes a connection whose request does not arrive, or whose response the client does not read.

    uvicorn waits without a limit for either, and the number of connections is limited.
    """

    _due: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._expect(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Bytes that do not start a request also cancel the keep-alive timer.
        if self._due is None and self.timeout_keep_alive_task is None and self._is_idle():
            self._expect(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._is_idle():
            self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        idle = self._is_idle()
        super().on_headers_complete()
        if self._is_ending and self.cycle is not None:  # an upgrade has no cycle
            self.cycle.keep_alive = False
        if idle:
            self._expect(BODY_SECONDS)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._expect(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unstick()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._unstick()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Wait `LAST` seconds if idle, so that a request that was just sent is still answered."""
        self._is_ending = True
        self.loop.call_later(LAST if self._is_idle() else 0, super().shutdown)

    def handle_websocket_upgrade(self) -> None:
        self._expect(None)
        super().handle_websocket_upgrade()

    def _is_idle(self) -> bool:
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def _expect(self, seconds: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            self._due = self.loop.call_later(seconds, self.transport.abort)

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the supervisor handles signals


async def serve(app: ASGIApp, stop: asyncio.Event, *, listener: socket.socket, proxies: str = "") -> None:
    """Serve until `stop` is set; the listener stays open, so that later clients wait for the next server.

    `proxies` is a comma-separated list of the proxies whose headers are trusted for the client's address.
    """
    config = uvicorn.Config(
        HeadRequests(SecurityHeaders(app)),
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=MESSAGE,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        timeout_graceful_shutdown=GRACE,
        backlog=BACKLOG,
        server_header=False,
    )
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    logger.bind(address=f"{host}:{port}").info("HTTP server started")
    ending = asyncio.create_task(_end(server, stop), name="http stop")
    try:
        with listener.dup() as duplicate:  # uvicorn closes its sockets
            duplicate.setblocking(False)
            await server.serve(sockets=[duplicate])
    finally:
        ending.cancel()


async def _end(server: Any, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
