"""Watches the broker's own figures, so that an alarm comes before it drops what it has acknowledged."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from iotistica.alarms import Alarms
from iotistica.domain.agents import broker_log
from iotistica.errors import CannotStart
from iotistica.instruments import BROKER_DROPPED, BROKER_STORED
from iotistica.mqtt.client import connect
from iotistica.storage.history.timeline_counts import TimelineCounts

STORED: Final = b"$SYS/broker/store/messages/bytes"
DROPPED: Final = b"$SYS/broker/publish/messages/dropped"
LOGS: Final = (b"$SYS/broker/log/N", b"$SYS/broker/log/E")
"""Its notices and errors, where `log_dest topic` is set: who connects, and who is thrown out."""
NEARLY_FULL: Final = 0.5  # share of what it keeps for one client that is an alarm
REMEMBERED: Final = 600.0  # seconds that an alarm about dropped messages stays


class BrokerWatch:
    """What is known of the broker, and the alarms it gives."""

    def __init__(self, alarms: Alarms, *, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` is the most that the broker keeps for one client that is away, in bytes."""
        self._alarms = alarms
        self._limit = limit
        self._clock = clock
        self._dropped: int | None = None
        self._dropped_at = -REMEMBERED

    def hear(self, topic: bytes, payload: bytes) -> None:
        """Take one figure of the broker."""
        try:
            value = int(payload)
        except ValueError:
            return
        if topic == STORED:
            BROKER_STORED.set(value)
            self._alarms.set("broker_queue", self._fullness(value))
        elif topic == DROPPED:
            BROKER_DROPPED.set(value)
            if self._dropped is not None and value > self._dropped:
                self._dropped_at = self._clock()
            self._dropped = value
        self._alarms.set(
            "broker_dropped",
            "the broker has dropped messages: some client was away, or too slow, for longer than its queue is"
            " large; if it was ours, they are lost (docs/delivery.md)"
            if self._clock() - self._dropped_at < REMEMBERED
            else None,
        )

    def _fullness(self, stored: int) -> str | None:
        if stored < NEARLY_FULL * self._limit:
            return None
        return (
            f"{stored >> 20} MiB of messages wait in the broker, and it drops beyond {self._limit >> 20} MiB:"
            " bring the intake back, or raise IOTISTICA_BROKER_QUEUE_MB"
        )


async def run(url: str, watch: BrokerWatch, timeline_counts: TimelineCounts, stop: asyncio.Event) -> None:
    """Listen until `stop`, and count who connects; a broker that does not let us is not watched: that is said."""
    try:
        async with connect(url) as client:
            await client.subscribe([topic.decode() for topic in (STORED, DROPPED, *LOGS)])
            async for batch in client.batches(stop):
                batch.ack()
                for _, topic, payload in batch.messages:
                    if topic not in LOGS:
                        watch.hear(topic, payload)
                    elif said := broker_log.parse_line(payload):
                        timeline_counts.add(said.tenant, said.agent, said.kind, said.details, word=said.word)
    except CannotStart as exc:
        logger.bind(reason=str(exc)).warning("the broker's queue is not watched: it has no account for that")
        await stop.wait()
