"""A lean MQTT 5 client on top of gmqtt: receives batches, acknowledges them on request, pipelines publishes.

gmqtt handles CONNECT, SUBSCRIBE, properties and keep-alive. PUBLISH and PUBACK, the two packets that come by
the thousand, are parsed by `Protocol`, one socket read at a time: this costs a tenth of gmqtt's parsing, and
nothing is acknowledged before `ReceivedBatch.ack`. The client depends on gmqtt's internals;
`tests/unit/test_gmqtt.py` fails when they change.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import gmqtt
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError

from iotistica.errors import CannotStart, Refused, Superseded, Unavailable
from iotistica.mqtt.protocol import Protocol, RawMessage, publish_packet
from iotistica.storage.circuit_breaker import CircuitBreaker

KEEPALIVE: Final = 30  # seconds
CONNECT_SECONDS: Final = 10.0
NEVER_EXPIRES: Final = 0xFFFFFFFF  # seconds; MQTT 5, 3.1.2.11.2
IN_FLIGHT: Final = 500  # publishes of this client that await a PUBACK

_BAD_CREDENTIALS: Final = frozenset({4, 5, 134, 135})
_TAKEN_OVER: Final = 0x8E  # DISCONNECT reason code


class ReceivedBatch:
    """Messages of one or more socket reads, in order, and the connection on which to acknowledge them."""

    def __init__(self, messages: list[RawMessage], protocol: "Protocol") -> None:
        self.messages = messages
        self._protocol = protocol

    def ack(self) -> None:
        """Acknowledge every message, in order, in one write; does nothing after the connection is lost."""
        self._protocol.write_pubacks(mid for mid, _, _ in self.messages if mid)


class _Connection(MQTTConnection):  # type: ignore[misc]
    def _keep_connection(self) -> None:
        if self._protocol.paused:  # reading is paused, so silence does not mean a dead connection
            self._last_data_in = time.monotonic()
        super()._keep_connection()


class _Client(gmqtt.Client):  # type: ignore[misc]
    """One connection; it never reconnects by itself, so that its owner decides how to react to a loss."""

    protocol: Protocol

    async def _create_connection(self, host: str, port: int, ssl: Any, clean_session: bool, keepalive: int) -> Any:
        self._exit_reconnecting_state()
        self._connack_received.clear()
        self._connection_lost.clear()
        handler = self._package_handler
        factory = partial(Protocol, connection_state=self._connection_state, id_generator=handler.id_generator)
        transport, self.protocol = await asyncio.get_running_loop().create_connection(factory, host, port, ssl=ssl)
        return _Connection(transport, self.protocol, clean_session, keepalive, package_handler=handler)

    async def reconnect(self, delay: bool = False) -> None:
        self._connack_received.set()  # a pending connect() must end

    def connection(self) -> Any:
        return self._connection

    def abort(self) -> None:
        """Clean up after a failed connection attempt."""
        if self._connection is not None:
            self._connection._transport.abort()
            self._connection._keep_connection_callback.cancel()


class Client:
    """A connection to the broker, as the rest of the platform uses it."""

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
        """Subscribe with QoS 1 and no-local, and wait for the SUBACK; retained messages come only if it is new.

        Raises `CannotStart` if the broker refuses a filter, and `Unavailable` if the connection is lost or the
        SUBACK does not arrive within `CONNECT_SECONDS`.
        """
        self._subscribed = asyncio.get_running_loop().create_future()
        self._client.subscribe(
            [gmqtt.Subscription(name, qos=1, no_local=True, retain_handling_options=1) for name in filters]
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while not self._subscribed.done():
                    if self._protocol.lost:
                        raise Unavailable("the connection to the broker was lost")
                    await asyncio.wait([self._subscribed], timeout=0.1)
                granted = self._subscribed.result()
        except TimeoutError as exc:
            raise Unavailable("the broker did not answer a subscription request") from exc
        if any(code >= 0x80 for code in granted):
            raise CannotStart(f"The broker refused a subscription; its reason codes are {granted}.")

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Ask the broker to end these subscriptions; those that do not exist do not matter."""
        self._client.unsubscribe(list(filters))

    async def batches(self, stop: asyncio.Event) -> AsyncIterator[ReceivedBatch]:
        """Yield batches as they arrive, until `stop` is set.

        Reading from the socket pauses by itself while more than `PAUSE_BYTES` of payload are not yet consumed.
        Raises `Superseded` when another client takes over the session, `Unavailable` when the connection is lost.
        """
        protocol = self._protocol
        stopping = asyncio.create_task(_set_on(stop, protocol.arrived), name="intake stop")
        try:
            while not stop.is_set():
                await protocol.arrived.wait()
                if protocol.inbox and not stop.is_set():
                    yield ReceivedBatch(protocol.take(), protocol)
                elif protocol.lost:
                    if self._taken_over:
                        raise Superseded("another client took over this session at the broker")
                    raise Unavailable("the connection to the broker was lost")
        finally:
            stopping.cancel()

    async def publish(self, topic: str, payload: bytes) -> "asyncio.Future[None]":
        """Send a QoS 1 message and return a future that completes with its PUBACK.

        Waits while `IN_FLIGHT` messages are unacknowledged. Raises `Unavailable` if the connection is lost.
        """
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
        """Send a DISCONNECT and close the connection; the broker keeps a persistent session."""
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


async def _set_on(stop: asyncio.Event, event: asyncio.Event) -> None:
    await stop.wait()
    event.set()


async def _open(raw: _Client, parts: SplitResult, keepalive: int) -> None:
    tls = parts.scheme in ("mqtts", "ssl")
    host, port = parts.hostname or "127.0.0.1", parts.port or (8883 if tls else 1883)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await raw.connect(host, port, ssl=tls, keepalive=keepalive)
    except MQTTConnectError as exc:
        raw.abort()
        if exc._code in _BAD_CREDENTIALS:
            raise CannotStart(f"The broker refuses the credentials of {parts.username!r}: {exc}.") from exc
        raise Refused(f"the broker refused the connection: {exc}") from exc
    except (OSError, TimeoutError) as exc:
        raw.abort()
        raise Unavailable(f"cannot reach the broker at {host}:{port}: {exc}") from exc


@asynccontextmanager
async def connect(
    url: str,
    *,
    client_id: str | None = None,
    keep_session: bool = False,
    keepalive: int = KEEPALIVE,
    breaker: CircuitBreaker | None = None,
) -> AsyncIterator[Client]:
    """Connect to the broker at `mqtt[s]://user:password@host:port`; the end of the block closes the connection.

    A `breaker` is checked before the attempt and records its result. Raises `CannotStart` for refused credentials,
    and `Unavailable` (or its subclass `Refused`) for failures that can be temporary.
    """
    parts = urlsplit(url)
    properties = {"session_expiry_interval": NEVER_EXPIRES} if keep_session else {}
    raw = _Client(client_id or "", clean_session=not keep_session, optimistic_acknowledgement=False, **properties)
    if parts.username:
        raw.set_auth_credentials(unquote(parts.username), unquote(parts.password or ""))
    with breaker.guard() if breaker else nullcontext():
        await _open(raw, parts, keepalive)
    client = Client(raw)
    try:
        if client.is_lost:
            raise Unavailable(f"the connection to the broker ended: {raw.protocol.error or 'the broker closed it'}")
        yield client
    finally:
        await client.close()
