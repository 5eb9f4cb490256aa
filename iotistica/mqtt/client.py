"""A lean MQTT 5 client on gmqtt: whole batches in, acknowledged when told, and pipelined publishes out.

gmqtt keeps what it does well (CONNECT, SUBSCRIBE, properties, keep-alive). PUBLISH and PUBACK, the two
packets that come by the thousand, are parsed here, a socket read at a time: a tenth of the cost, and
nothing is acknowledged before `Batch.ack`. It leans on gmqtt's internals; `tests/unit/test_gmqtt.py`
fails when they change.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import gmqtt
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.mqtt.package import Package
from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol

from iotistica.errors import CannotStart, Superseded, Unavailable

Raw = tuple[int, bytes, bytes]
"""Packet id (0 for QoS 0), topic, payload."""

BATCH_MESSAGES: Final = 2000
BATCH_BYTES: Final = 4 << 20
PAUSE_BYTES: Final = 8 << 20  # payload bytes not yet taken at which reading stops
RESUME_BYTES: Final = 2 << 20
KEEPALIVE: Final = 30  # seconds
CONNECT_SECONDS: Final = 10.0
NEVER_EXPIRES: Final = 0xFFFFFFFF  # seconds; MQTT 5, 3.1.2.11.2
IN_FLIGHT: Final = 500  # own publishes without an acknowledgement

_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_BAD_CREDENTIALS: Final = frozenset({4, 5, 134, 135})
_TAKEN_OVER: Final = 0x8E  # DISCONNECT reason code


class Batch:
    """Messages of one or more socket reads, in order, and the connection they must be acknowledged on."""

    def __init__(self, messages: list[Raw], protocol: "_Protocol") -> None:
        self.messages = messages
        self._protocol = protocol

    def ack(self) -> None:
        """Acknowledge every message, in order, in one write; after a lost connection this does nothing."""
        self._protocol.write_pubacks(mid for mid, _, _ in self.messages if mid)


class _Protocol(MQTTProtocol):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inbox: deque[list[Raw]] = deque()
        self.inbox_bytes = 0
        self.arrived = asyncio.Event()
        self.paused = False
        self.lost = False
        self.acks: dict[int, asyncio.Future[None]] = {}
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        BaseMQTTProtocol.connection_made(self, transport)  # MQTTProtocol would start its read loop

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        messages: list[Raw] = []
        position, end = 0, len(data)
        while end - position >= 2:
            first = data[position]
            body = position + 2
            size = data[position + 1]
            if size & 0x80:
                size &= 0x7F
                shift = 7
                while body < end:
                    byte = data[body]
                    body += 1
                    size |= (byte & 0x7F) << shift
                    shift += 7
                    if not byte & 0x80 or shift > 28:
                        break
                else:
                    break  # the length itself is cut
            stop = body + size
            if stop > end:
                break
            kind = first & 0xF0
            if kind == _PUBLISH:
                messages.append(_publish(data, first, body, stop))
            elif kind == _PUBACK:
                self._acked(data[body:stop])
            else:
                self._connection.put_package(Package(first, data[body:stop]))
            position = stop
        self._tail = data[position:]
        self._connection._last_data_in = time.monotonic()
        if messages:
            self.inbox.append(messages)
            self.inbox_bytes += sum(len(message[2]) for message in messages)
            self.arrived.set()
            if self.inbox_bytes > PAUSE_BYTES and not self.paused:
                self.paused = True
                self._transport.pause_reading()

    def _acked(self, body: bytes) -> None:
        waiting = self.acks.pop(int.from_bytes(body[:2], "big"), None)
        if waiting is not None and not waiting.done():
            code = body[2] if len(body) > 2 else 0
            if code >= 0x80:
                waiting.set_exception(Unavailable(f"the broker refused a publish with 0x{code:02x}"))
            else:
                waiting.set_result(None)

    def take(self) -> list[Raw]:
        """Everything that waits, within the bounds of a batch."""
        messages = self.inbox.popleft()
        size = sum(len(message[2]) for message in messages)
        while self.inbox and len(messages) < BATCH_MESSAGES and size < BATCH_BYTES:
            more = self.inbox.popleft()
            size += sum(len(message[2]) for message in more)
            messages += more
        self.inbox_bytes -= size
        if not self.inbox and not self.lost:
            self.arrived.clear()
        if self.paused and self.inbox_bytes < RESUME_BYTES and not self._transport.is_closing():
            self.paused = False
            self._transport.resume_reading()
        return messages

    def write_pubacks(self, mids: Iterable[int]) -> None:
        packets = b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids)
        if packets and not self.lost:
            self.write_data(packets)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.arrived.set()
        for waiting in self.acks.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the connection to the broker was lost"))
        self.acks.clear()
        super().connection_lost(None)


def _publish(data: bytes, first: int, position: int, stop: int) -> Raw:
    start = position + 2
    position = start + (data[position] << 8 | data[position + 1])
    topic = data[start:position]
    mid = 0
    if first & 0x06:
        mid = data[position] << 8 | data[position + 1]
        position += 2
    properties = shift = 0
    while True:  # the length of the properties, which nothing here needs
        byte = data[position]
        position += 1
        properties |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
        shift += 7
    return mid, topic, data[position + properties : stop]


class _Connection(MQTTConnection):  # type: ignore[misc]
    def _keep_connection(self) -> None:
        if self._protocol.paused:  # we do not listen, so silence proves nothing
            self._last_data_in = time.monotonic()
        super()._keep_connection()


class _Client(gmqtt.Client):  # type: ignore[misc]
    """One connection; never reconnects by itself, so that the owner decides what a loss means."""

    protocol: _Protocol

    async def _create_connection(self, host: str, port: int, ssl: Any, clean_session: bool, keepalive: int) -> Any:
        self._exit_reconnecting_state()
        self._connack_received.clear()
        self._connection_lost.clear()
        handler = self._package_handler
        factory = partial(_Protocol, connection_state=self._connection_state, id_generator=handler.id_generator)
        transport, self.protocol = await asyncio.get_running_loop().create_connection(factory, host, port, ssl=ssl)
        return _Connection(transport, self.protocol, clean_session, keepalive, package_handler=handler)

    async def reconnect(self, delay: bool = False) -> None:
        self._connack_received.set()  # a connect() that still waits must end

    def connection(self) -> Any:
        return self._connection


class Client:
    """What the rest of the platform sees of a connection to the broker."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._protocol = client.protocol
        self._taken_over = False
        self._subscribed: asyncio.Future[Any] | None = None
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._next_mid = 0
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe

    async def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe with QoS 1, no local, retained messages only for a new session; waits for the answer."""
        self._subscribed = asyncio.get_running_loop().create_future()
        self._client.subscribe(
            [gmqtt.Subscription(name, qos=1, no_local=True, retain_handling_options=1) for name in filters]
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                granted = await self._subscribed
        except TimeoutError as exc:
            raise Unavailable("the broker did not answer a subscription") from exc
        if any(code >= 0x80 for code in granted):
            raise CannotStart(f"the broker refused a subscription: {granted}")

    async def batches(self, stop: asyncio.Event) -> AsyncIterator[Batch]:
        """Batches as they come, until `stop` is set.

        Reading from the socket pauses by itself while more than `PAUSE_BYTES` wait here. Raises
        `Superseded` when another client took the session over, `Unavailable` when the connection is lost.
        """
        protocol = self._protocol
        stopping = asyncio.create_task(_set_on(stop, protocol.arrived), name="intake stop")
        try:
            while not stop.is_set():
                await protocol.arrived.wait()
                if protocol.inbox and not stop.is_set():
                    yield Batch(protocol.take(), protocol)
                elif protocol.lost:
                    if self._taken_over:
                        raise Superseded("another client took over our session at the broker")
                    raise Unavailable("the connection to the broker was lost")
        finally:
            stopping.cancel()

    async def publish(self, topic: str, payload: bytes) -> "asyncio.Future[None]":
        """Write a QoS 1 message; waits while too many are unacknowledged. The future ends with the PUBACK."""
        await self._window.acquire()
        if self._protocol.lost:
            self._window.release()
            raise Unavailable("the connection to the broker was lost")
        mid = self._mid()
        acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        acked.add_done_callback(lambda _: self._window.release())
        self._protocol.acks[mid] = acked
        self._protocol.write_data(publish_packet(topic.encode(), payload, mid))
        return acked

    def _mid(self) -> int:
        while True:
            self._next_mid = self._next_mid % 0xFFFF + 1
            if self._next_mid not in self._protocol.acks:
                return self._next_mid

    @property
    def is_lost(self) -> bool:
        return self._protocol.lost

    def abort(self) -> None:
        """Cut the connection without a DISCONNECT, as a power failure would."""
        self._protocol._transport.abort()

    async def close(self) -> None:
        """Leave the broker with a DISCONNECT; the session stays there."""
        if not self._protocol.lost:
            await self._client.disconnect()
        callback = self._client.connection()._keep_connection_callback
        if callback:
            callback.cancel()

    def _on_disconnect(self, _client: object, packet: bytes, exc: object = None) -> None:
        self._taken_over = self._taken_over or packet[:1] == bytes([_TAKEN_OVER])

    def _on_subscribe(self, _client: object, _mid: int, granted: Iterable[int], _properties: object) -> None:
        if self._subscribed and not self._subscribed.done():
            self._subscribed.set_result(list(granted))


def publish_packet(topic: bytes, payload: bytes, mid: int) -> bytes:
    """A QoS 1 PUBLISH of MQTT 5 without properties."""
    body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + b"\0"
    size, length = len(body) + len(payload), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return b"\x32" + bytes(length) + body + payload


async def _set_on(stop: asyncio.Event, event: asyncio.Event) -> None:
    await stop.wait()
    event.set()


@asynccontextmanager
async def connect(
    url: str, *, client_id: str | None = None, keep_session: bool = False, keepalive: int = KEEPALIVE
) -> AsyncIterator[Client]:
    """A connection to the broker of `mqtt[s]://user:password@host:port`, closed at the end of the block.

    Raises `CannotStart` for refused credentials and `Unavailable` for everything that may pass.
    """
    parts = urlsplit(url)
    properties = {"session_expiry_interval": NEVER_EXPIRES} if keep_session else {}
    raw = _Client(client_id or "", clean_session=not keep_session, optimistic_acknowledgement=False, **properties)
    if parts.username:
        raw.set_auth_credentials(unquote(parts.username), unquote(parts.password or ""))
    tls = parts.scheme in ("mqtts", "ssl")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await raw.connect(
                parts.hostname or "127.0.0.1",
                parts.port or (8883 if tls else 1883),
                ssl=tls,
                keepalive=keepalive,
            )
    except MQTTConnectError as exc:
        if exc._code in _BAD_CREDENTIALS:
            raise CannotStart(f"the broker refuses {parts.username!r}: {exc}") from exc
        raise Unavailable(f"the broker refused the connection: {exc}") from exc
    except (OSError, TimeoutError) as exc:
        raise Unavailable(f"cannot reach the broker at {parts.hostname}:{parts.port}: {exc}") from exc
    client = Client(raw)
    try:
        if client.is_lost:
            raise Unavailable("the broker closed the connection")
        yield client
    finally:
        await client.close()
