"""Watches the broker's metrics, so that an alarm is raised before the broker drops acknowledged messages."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from iotistica.domain.agents import broker_log
from iotistica.errors import CannotStart
from iotistica.instruments import BROKER_DROPPED, BROKER_STORED
from iotistica.mqtt.client import connect
from iotistica.platform_alarms import Alarms
from iotistica.storage.history.timeline_counts import TimelineCounts

STORED: Final = b"$SYS/broker/store/messages/bytes"
DROPPED: Final = b"$SYS/broker/publish/messages/dropped"
LOGS: Final = (b"$SYS/broker/log/N", b"$SYS/broker/log/E")
"""The broker's notices and errors (with `log_dest topic`): which clients connect and which are disconnected."""
NEARLY_FULL: Final = 0.5  # share of one client's queue limit at which the alarm is raised
REMEMBERED: Final = 600.0  # seconds for which the alarm about dropped messages stays


class BrokerWatch:
    """Keeps the broker's latest metrics and sets the alarms that follow from them."""

    def __init__(self, alarms: Alarms, *, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` is the size, in bytes, of the queue that the broker keeps for one offline client."""
        self._alarms = alarms
        self._limit = limit
        self._clock = clock
        self._dropped: int | None = None
        self._dropped_at = -REMEMBERED

    def process(self, topic: bytes, payload: bytes) -> None:
        """Process one metric of the broker; a payload that is not an integer is ignored."""
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
            "the broker has dropped messages because the queue of a client that was offline or too slow was full;"
            " if that client was the intake, the messages are lost (docs/delivery.md)"
            if self._clock() - self._dropped_at < REMEMBERED
            else None,
        )

    def _fullness(self, stored: int) -> str | None:
        if stored < NEARLY_FULL * self._limit:
            return None
        return (
            f"{stored >> 20} MiB of messages are queued in the broker, which drops messages above"
            f" {self._limit >> 20} MiB: restore the intake, or raise IOTISTICA_BROKER_QUEUE_MB"
        )


async def run(url: str, watch: BrokerWatch, timeline_counts: TimelineCounts, stop: asyncio.Event) -> None:
    """Watch the broker's metrics and count the agents' connection events until `stop`.

    If the broker refuses the account or the subscription, log a warning and wait for `stop`.
    """
    try:
        async with connect(url) as client:
            await client.subscribe([topic.decode() for topic in (STORED, DROPPED, *LOGS)])
            async for batch in client.batches(stop):
                batch.ack()
                for _, topic, payload in batch.messages:
                    if topic not in LOGS:
                        watch.process(topic, payload)
                    elif event := broker_log.parse_line(payload):
                        timeline_counts.add(event.tenant, event.agent, event.kind, event.details, word=event.word)
    except CannotStart as exc:
        logger.bind(reason=str(exc)).warning("the broker's queue is not monitored: the broker refused access")
        await stop.wait()
