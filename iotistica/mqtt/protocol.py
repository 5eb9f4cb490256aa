"""The MQTT protocol of one connection: parses PUBLISH and PUBACK per socket read, leaves the rest to gmqtt."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from gmqtt.mqtt.package import Package
from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol

from iotistica.errors import Unavailable

RawMessage = tuple[int, bytes, bytes]
"""Packet id (0 for QoS 0), topic, payload."""

BATCH_MESSAGES: Final = 2000
BATCH_BYTES: Final = 4 << 20
PAUSE_BYTES: Final = 8 << 20  # payload bytes not yet consumed above which reading pauses
RESUME_BYTES: Final = 2 << 20

_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40


class Protocol(MQTTProtocol):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inbox: deque[list[RawMessage]] = deque()
        self.inbox_bytes = 0
        self.arrived = asyncio.Event()
        self.paused = False
        self.lost = False
        self.error: Exception | None = None
        """What ended the connection, unless the broker closed it."""
        self.acks: dict[int, asyncio.Future[None]] = {}
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        BaseMQTTProtocol.connection_made(self, transport)  # MQTTProtocol would start its read loop

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        messages: list[RawMessage] = []
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
                    break  # the length field is incomplete
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
        acked = self.acks.pop(int.from_bytes(body[:2], "big"), None)
        if acked is not None and not acked.done():
            code = body[2] if len(body) > 2 else 0
            if code >= 0x80:
                acked.set_exception(Unavailable(f"the broker refused a publish with reason code 0x{code:02x}"))
            else:
                acked.set_result(None)

    def take(self) -> list[RawMessage]:
        """Remove and return waiting messages, until `BATCH_MESSAGES` or `BATCH_BYTES` is reached."""
        messages = self.inbox.popleft()
        size = sum(len(message[2]) for message in messages)
        while self.inbox and len(messages) < BATCH_MESSAGES and size < BATCH_BYTES:
            chunk = self.inbox.popleft()
            size += sum(len(message[2]) for message in chunk)
            messages += chunk
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

    def eof_received(self) -> bool:
        return False  # close; a stream reader would keep the connection half open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.error = True, exc
        self.arrived.set()
        for acked in self.acks.values():
            if not acked.done():
                acked.set_exception(Unavailable("the connection to the broker was lost"))
        self.acks.clear()
        super().connection_lost(None)


def _publish(data: bytes, first: int, position: int, stop: int) -> RawMessage:
    start = position + 2
    position = start + (data[position] << 8 | data[position + 1])
    topic = data[start:position]
    mid = 0
    if first & 0x06:
        mid = data[position] << 8 | data[position + 1]
        position += 2
    properties = shift = 0
    while True:  # the length of the properties, which are skipped
        byte = data[position]
        position += 1
        properties |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
        shift += 7
    return mid, topic, data[position + properties : stop]


def publish_packet(topic: bytes, payload: bytes, mid: int) -> bytes:
    """Return a QoS 1 PUBLISH packet of MQTT 5 without properties."""
    body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + b"\0"
    size, length = len(body) + len(payload), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return b"\x32" + bytes(length) + body + payload
