"""A client of MQTT 3.1.1 that writes the packets it is given, as the public agent's library does."""

import socket
import struct
from collections.abc import Mapping
from typing import Any


class RefusedError(Exception):
    """The broker answered CONNECT with a refusal."""


class Client311:
    """One blocking connection."""

    def __init__(
        self,
        port: int,
        username: str,
        password: str,
        client_id: str = "some-client",
        *,
        clean: bool = True,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._mid = 0
        flags = 0xC0 | (0x02 if clean else 0) | (0x0C if will else 0)  # a will of QoS 1
        body = b"\0\4MQTT\4" + bytes([flags]) + b"\0\x3c" + _text(client_id)
        if will:
            body += _text(will[0]) + struct.pack(">H", len(will[1])) + will[1]
        body += _text(username) + _text(password)
        try:
            self._socket.sendall(b"\x10" + _length(len(body)) + body)
            kind, answer = self.read()
            if kind != 0x20 or answer[1]:
                raise RefusedError(answer[1])  # noqa: TRY301
        except BaseException:
            self.close()
            raise

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, mid: int = 0) -> None:
        """Publish and wait for the acknowledgement; raises OSError when the broker closes instead."""
        self._mid = mid or self._mid % 0xFFFF + 1
        body = _text(topic) + (struct.pack(">H", self._mid) if qos else b"") + payload
        self._socket.sendall(bytes([0x30 | qos << 1 | retain]) + _length(len(body)) + body)
        if qos:
            kind, answer = self.read()
            assert (kind, answer) == (0x40, struct.pack(">H", self._mid))

    def replay(self, packet: Mapping[str, Any], topic: str, payload: bytes) -> None:
        """Publish as a captured packet was."""
        self.publish(topic, payload, qos=packet["qos"], retain=packet["retain"], mid=packet["mid"])

    def subscribe(self, *topics: str) -> None:
        body = b"\0\1" + b"".join(_text(topic) + b"\1" for topic in topics)
        self._socket.sendall(b"\x82" + _length(len(body)) + body)
        assert self.read()[0] == 0x90

    def ping(self) -> None:
        """Ask whether the connection is there; raises OSError if it is not."""
        self._socket.sendall(b"\xc0\0")
        assert self.read()[0] == 0xD0

    def read(self) -> tuple[int, bytes]:
        """The next packet: its type and flags, and its body."""
        kind = self._exactly(1)[0]
        size = shift = 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind, self._exactly(size)

    def payloads(self, last: bytes) -> list[bytes]:
        """What was delivered up to a payload that must come, each acknowledged."""
        got: list[bytes] = []
        while last not in got:
            got.append(self.message())
        return got

    def messages(self, count: int) -> list[bytes]:
        """So many payloads, each acknowledged."""
        return [self.message() for _ in range(count)]

    def message(self) -> bytes:
        """The payload of the next message, which is acknowledged."""
        while True:
            kind, body = self.read()
            if kind & 0xF0 != 0x30:
                continue
            (size,) = struct.unpack_from(">H", body)
            rest = body[2 + size :]
            if kind & 0x06:
                self._socket.sendall(b"\x40\x02" + rest[:2])
                return rest[2:]
            return rest

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Client311":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError("the broker closed the connection")
            data += part
        return data


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)
