"""Agents that publish what can be told apart, and send again what nobody acknowledged."""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from iotistica.domain.ids import agent_topic, agent_user
from iotistica.errors import IotisticaError
from iotistica.mqtt.client import Client, connect
from iotistica.simulate.fleet import SimulatedAgent

READINGS: Final = 3  # of a message
WINDOW: Final = 20  # messages of an agent that wait for their acknowledgement
_NUMBER: Final = re.compile(rb'"number":"([^"]+)"')


def name_of(_: bytes, payload: bytes) -> str | None:
    """What tells a message from every other."""
    found = _NUMBER.search(payload)
    return found[1].decode() if found else None


class Load:
    """What some agents publish at a rate, and what became of it as far as they can tell."""

    def __init__(
        self, members: Sequence[SimulatedAgent], port: int, *, a_second: float, readings: int = READINGS
    ) -> None:
        """`a_second` are messages of each agent; 0 is as fast as they go."""
        self._members = members
        self._port = port
        self._every = 1 / a_second if a_second else 0.0
        self._readings = readings
        self._start = int(time.time() * 1000) - 3_600_000
        self.published: set[str] = set()
        self.acked: set[str] = set()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, most: int = 1 << 30) -> "Load":
        """Begin; each agent ends by itself after so many messages."""
        self._tasks = [asyncio.create_task(self._run(n, m, most)) for n, m in enumerate(self._members)]
        return self

    async def stop(self) -> None:
        """Publish nothing new; what waits for its acknowledgement is sent again until it has it."""
        self._stop.set()
        await self.finished()

    async def finished(self, seconds: float = 120.0) -> None:
        """Wait until every agent has ended."""
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self._tasks)

    def _payload(self, agent: int, number: int) -> tuple[str, bytes]:
        name = f"{self._members[agent].agent}:{number}"
        when = self._start + number
        points = [{"metric": f"m{n}", "value": number, "timestamp": when} for n in range(self._readings)]
        return name, json.dumps({"number": name, "readings": points}, separators=(",", ":")).encode()

    async def _run(self, agent: int, member: SimulatedAgent, most: int) -> None:
        topic = f"{agent_topic(member.tenant, member.agent)}/endpoints/chaos"
        user = agent_user(member.tenant, member.agent).replace("/", "%2F")
        url = f"mqtt://{user}:{member.password}@127.0.0.1:{self._port}"
        waiting: deque[tuple[str, bytes]] = deque()
        number, due = 0, time.monotonic()
        while not ((self._stop.is_set() or number >= most) and not waiting):
            try:
                async with connect(url) as client:
                    open_: deque[tuple[str, bytes, asyncio.Future[None]]] = deque()
                    again = list(waiting)
                    waiting.clear()
                    try:
                        for name, payload in again:
                            open_.append((name, payload, await client.publish(topic, payload)))
                        while open_ or not (self._stop.is_set() or number >= most):
                            may = not self._stop.is_set() and number < most and len(open_) < WINDOW
                            if may and time.monotonic() >= due:
                                name, payload = self._payload(agent, number)
                                number += 1
                                self.published.add(name)
                                open_.append((name, payload, await client.publish(topic, payload)))
                                due = max(due + self._every, time.monotonic() - 1)
                            is_done = self._stop.is_set() or number >= most
                            await self._settle(open_, client, due, must=is_done or len(open_) >= WINDOW)
                    finally:
                        waiting.extend((name, payload) for name, payload, _ in open_)
                        for _, _, future in open_:
                            future.exception() if future.done() and not future.cancelled() else None
            except IotisticaError:
                await asyncio.sleep(0.2)

    async def _settle(
        self, open_: "deque[tuple[str, bytes, asyncio.Future[None]]]", client: Client, due: float, *, must: bool
    ) -> None:
        """Take note of acknowledgements; wait for one if we `must`, else until the next message is due."""
        left = due - time.monotonic()
        if open_ and (left > 0 or must):
            await asyncio.wait([open_[0][2]], timeout=1.0 if must else max(left, 0.001))
        elif left > 0:
            await asyncio.sleep(left)
        while open_ and open_[0][2].done():
            open_[0][2].result()
            self.acked.add(open_.popleft()[0])
        if client.is_lost:
            raise IotisticaError("lost")
