"""Publishes prepared packets as fast as they are acknowledged, each agent on a connection of its own."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from iotistica.domain.ids import agent_user
from iotistica.simulate.fleet import SimulatedAgent

WINDOW = 2  # unacknowledged messages an agent


class Publisher(asyncio.Protocol):
    """One agent, written for little work a message: it shares the machine with what is measured."""

    def __init__(self, member: SimulatedAgent, packets: Sequence[bytes]) -> None:
        self._member = member
        self._packets = iter(packets)
        self._left = len(packets)
        self._buffer = b""
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        user = agent_user(self._member.tenant, self._member.agent)
        body = b"\0\4MQTT\5\xc2\0\0\0" + b"\0\4load" + _text(user) + _text(self._member.password)
        transport.write(b"\x10" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        position = 0
        while len(data) - position >= 2 and len(data) - position >= 2 + data[position + 1]:
            kind = data[position] & 0xF0
            if kind == 0x20:
                if data[position + 3]:
                    self.connected.set_exception(RuntimeError(f"refused with {data[position + 3]}"))
                else:
                    self.connected.set_result(None)
            elif kind == 0x40:
                self._left -= 1
                self._write(1)
                if not self._left:
                    self.done.set_result(None)
            position += 2 + data[position + 1]
        self._buffer = data[position:]

    def begin(self) -> None:
        self._write(WINDOW)

    def _write(self, count: int) -> None:
        for _ in range(count):
            packet = next(self._packets, None)
            if packet is not None:
                self._transport.write(packet)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.connected, self.done):
            if not future.done():
                future.set_exception(RuntimeError(f"connection lost: {exc}"))

    def close(self) -> None:
        self._transport.close()


async def connect(
    members: Sequence[SimulatedAgent], packets: Sequence[Sequence[bytes]], url: str
) -> list[Publisher]:
    """Connect all agents, some at a time; nothing is published yet."""
    address = urlsplit(url)
    assert address.hostname
    loop = asyncio.get_running_loop()
    publishers = []
    for member, own in zip(members, packets, strict=True):
        _, publisher = await loop.create_connection(
            partial(Publisher, member, own), address.hostname, address.port or 1883
        )
        await publisher.connected
        publishers.append(publisher)
    return publishers


async def publish(publishers: Sequence[Publisher]) -> None:
    """Publish everything; returns when the broker has acknowledged it all."""
    for publisher in publishers:
        publisher.begin()
    await asyncio.gather(*(publisher.done for publisher in publishers))


def _text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw
