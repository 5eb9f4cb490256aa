"""The internals of uvicorn that `iotistica/api/http/server.py` and `head_requests.py` depend on."""

import asyncio
import inspect
import signal
from typing import Any

import pytest
import uvicorn
from litestar.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from iotistica.api.http.head_requests import HeadRequests

SERVER = "uvicorn changed: adapt _Protocol and _Server in iotistica/api/http/server.py"
HEAD = "uvicorn changed: adapt iotistica/api/http/head_requests.py"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.reading_paused = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class App:
    """Answers every request once `answer` is set, and keeps what `receive` returns after the answer."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.after: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await self.answer.wait()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"body", "more_body": False})
        self.after.append(await receive())


def connect(app: Any) -> tuple[HttpToolsProtocol, Transport]:
    """A connection without a socket, made with the same options as in `server.serve`."""
    config = uvicorn.Config(app, http=HttpToolsProtocol, ws="websockets-sansio", log_config=None, access_log=False)
    protocol, transport = HttpToolsProtocol(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_connection_is_counted_and_has_its_loop_and_transport() -> None:
    """The limit of connections and the timers use these attributes."""
    protocol, transport = connect(App())
    assert protocol.connections == {protocol}, SERVER
    assert protocol.transport is transport, SERVER
    assert protocol.loop is asyncio.get_running_loop(), SERVER
    assert protocol.cycle is None, SERVER
    protocol.connection_lost(None)
    assert protocol.connections == set(), SERVER


async def test_a_request_has_a_cycle_that_ends_with_its_answer() -> None:
    """`cycle.response_complete` separates idle connections from busy ones; the keep-alive timer follows the answer."""
    app = App()
    protocol, transport = connect(app)
    protocol.data_received(GET)
    await settle()
    assert protocol.cycle.response_complete is False, SERVER
    assert protocol.timeout_keep_alive_task is None, SERVER
    app.answer.set()
    await settle()
    assert protocol.cycle.response_complete is True, SERVER
    assert protocol.timeout_keep_alive_task is not None, SERVER
    assert transport.written.endswith(b"\r\n\r\nbody"), SERVER
    protocol.data_received(b"\r\n")
    assert protocol.timeout_keep_alive_task is None, f"{SERVER} (bytes that begin no request end the timer)"


async def test_the_parser_calls_the_methods_that_set_the_timers() -> None:
    """The timers of the head and of the body are set in these callbacks."""
    called = []

    class Recorder(HttpToolsProtocol):
        def on_message_begin(self) -> None:
            called.append("begin")
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            called.append("headers")
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            called.append("complete")
            super().on_message_complete()

    made, transport = connect(App())
    recorder = Recorder(made.config, ServerState(), {})
    recorder.connection_made(transport)
    recorder.data_received(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
    assert called == ["begin", "headers"], SERVER
    recorder.data_received(b"ab")
    assert called == ["begin", "headers", "complete"], SERVER
    for task in list(recorder.tasks):
        task.cancel()
    await settle()


async def test_a_cycle_that_must_not_be_kept_alive_closes_the_connection() -> None:
    """Requests that come during a shutdown are answered with `Connection: close`."""
    app = App()
    app.answer.set()
    protocol, transport = connect(app)
    protocol.data_received(GET)
    protocol.cycle.keep_alive = False
    await settle()
    assert b"connection: close" in transport.written, SERVER
    assert transport.closed, SERVER


async def test_a_shutdown_closes_idle_connections_and_lets_requests_end() -> None:
    app = App()
    idle, transport = connect(app)
    idle.shutdown()
    assert transport.closed, SERVER
    busy, transport = connect(app)
    busy.data_received(GET)
    await settle()
    busy.shutdown()
    assert not transport.closed, SERVER
    assert busy.cycle.keep_alive is False, SERVER
    app.answer.set()
    await settle()
    assert transport.closed, SERVER


async def test_writing_pauses_and_resumes_through_the_protocol() -> None:
    """The timer for clients that read nothing is set in `pause_writing`."""
    protocol, _ = connect(App())
    protocol.pause_writing()
    assert protocol.flow.write_paused, SERVER
    protocol.resume_writing()
    assert not protocol.flow.write_paused, SERVER


async def test_an_upgrade_leaves_no_cycle_and_changes_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """`handle_websocket_upgrade` ends the timers, and `on_headers_complete` leaves `cycle` None."""
    called = []
    upgrade = HttpToolsProtocol.handle_websocket_upgrade

    def recorded(protocol: HttpToolsProtocol) -> None:
        called.append(protocol)
        upgrade(protocol)

    monkeypatch.setattr(HttpToolsProtocol, "handle_websocket_upgrade", recorded)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    protocol, transport = connect(app)
    protocol.data_received(
        b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert called == [protocol], SERVER
    assert protocol.cycle is None, SERVER
    assert isinstance(transport.protocol, WebSocketsSansIOProtocol), SERVER
    for task in list(protocol.tasks):
        task.cancel()
    await settle()


async def test_a_head_answer_has_headers_and_no_body() -> None:
    """uvicorn must leave out the body by the original method and accept a body shorter than Content-Length."""
    app = App()
    app.answer.set()
    protocol, transport = connect(HeadRequests(app))
    protocol.data_received(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    await settle()
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n"), HEAD
    assert b"content-length: 4\r\n" in transport.written, HEAD
    assert transport.written.endswith(b"\r\n\r\n"), HEAD
    assert not transport.closed, HEAD
    assert app.after == [{"type": "http.disconnect"}], f"{HEAD} (this ends an endless stream)"


async def test_receive_returns_a_disconnect_after_the_answer() -> None:
    """`receive` must not block after the answer; Litestar's streams wait for it."""
    app = App()
    app.answer.set()
    protocol, _ = connect(app)
    protocol.data_received(GET)
    await settle()
    messages: list[Message] = app.after
    assert messages == [{"type": "http.disconnect"}], SERVER


async def test_the_server_installs_signal_handlers_in_capture_signals_alone() -> None:
    """Overridden, so that the supervisor keeps its handlers; `should_exit` ends `serve`."""

    class Server(uvicorn.Server):
        captured = False

        def capture_signals(self) -> Any:
            import contextlib

            self.captured = True
            return contextlib.nullcontext()

    assert inspect.isgeneratorfunction(inspect.unwrap(uvicorn.Server.capture_signals)), SERVER
    before = signal.getsignal(signal.SIGTERM)
    server = Server(uvicorn.Config(App(), port=0, host="127.0.0.1", lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.01)
        assert server.captured, SERVER
        assert signal.getsignal(signal.SIGTERM) == before, SERVER
        server.should_exit = True
        await serving
