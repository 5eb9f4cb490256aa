"""A small TCP proxy that reads along, and cuts connections at any byte."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

CHUNK: Final = 65_536

Heard = Callable[[int, bytes], None]
"""Called with the number of a connection and what passed."""


class Proxy:
    """Passes bytes on between whoever connects and a server on loopback."""

    def __init__(self, target: int, *, up: Heard | None = None, down: Heard | None = None, seed: int = 1) -> None:
        """`up` hears what goes to the server, `down` what comes from it, both before it is passed on."""
        self._target = target
        self._up, self._down = up, down
        self._random = random.Random(seed)
        self._cut_after: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self.cuts = 0
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, within: int) -> None:
        """Cut the next connection that carries anything, somewhere in the next so many bytes."""
        self._cut_after = self._random.randrange(1, within)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._number += 1
        number = self._number
        self._open.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(up_writer)
        try:
            await asyncio.gather(
                self._pass(number, reader, up_writer, self._up), self._pass(number, up_reader, writer, self._down)
            )
        except (OSError, EOFError):
            pass
        finally:
            for one in (writer, up_writer):
                one.transport.abort()
                self._open.discard(one)
            self._tasks.discard(task)

    async def _pass(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Heard | None
    ) -> None:
        while data := await reader.read(CHUNK):
            is_cut = False
            if self._cut_after is not None:
                is_cut = len(data) >= self._cut_after
                data = data[: self._cut_after] if is_cut else data
                self._cut_after = None if is_cut else self._cut_after - len(data)
            if heard is not None:
                heard(number, data)
            writer.write(data)
            with contextlib.suppress(OSError):
                await writer.drain()
            if is_cut:
                self.cuts += 1
                await asyncio.sleep(0.05)  # what was passed on arrives before the end does
                raise EOFError
        raise EOFError


class Acknowledgements:
    """Reads MQTT along: which payloads a client has acknowledged to the broker."""

    def __init__(self, name: Callable[[bytes, bytes], str | None]) -> None:
        """`name` makes a name of topic and payload, None for what does not count."""
        self._name = name
        self._rest: dict[tuple[int, bool], bytes] = {}
        self._open: dict[tuple[int, int], str] = {}
        self.acked: set[str] = set()

    def down(self, number: int, data: bytes) -> None:
        """What comes from the broker."""
        for first, body in self._packets(number, False, data):
            if first & 0xF0 != 0x30 or not first & 0x06:
                continue
            size = int.from_bytes(body[:2], "big")
            topic, rest = body[2 : 2 + size], body[2 + size :]
            mid, properties = int.from_bytes(rest[:2], "big"), rest[2]  # ours are shorter than 128 bytes
            if name := self._name(topic, rest[3 + properties :]):
                self._open[number, mid] = name

    def up(self, number: int, data: bytes) -> None:
        """What the client sends."""
        for first, body in self._packets(number, True, data):
            if first == 0x40 and (name := self._open.pop((number, int.from_bytes(body[:2], "big")), None)):
                self.acked.add(name)

    def _packets(self, number: int, is_up: bool, data: bytes) -> list[tuple[int, bytes]]:
        data = self._rest.get((number, is_up), b"") + data
        packets, at = [], 0
        while True:
            size, shift, start = 0, 0, at + 1
            while start < len(data) and data[start] & 0x80:
                size |= (data[start] & 0x7F) << shift
                shift, start = shift + 7, start + 1
            if start >= len(data):
                break
            size |= data[start] << shift
            end = start + 1 + size
            if end > len(data):
                break
            packets.append((data[at], data[start + 1 : end]))
            at = end
        self._rest[number, is_up] = data[at:]
        return packets
