"""Watches the broker: its metrics, so that an alarm comes before it drops messages, and its log."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from iotistica.domain.agents import broker_log
from iotistica.domain.agents.broker_connection import printable
from iotistica.domain.ids import agent_of_user
from iotistica.errors import CannotStart, Unavailable
from iotistica.instruments import BROKER_DROPPED, BROKER_REFUSED, BROKER_STORED
from iotistica.mqtt.client import connect
from iotistica.platform_alarms import Alarms
from iotistica.storage.agents import refused_logins
from iotistica.storage.history.timeline import MESSAGE_REFUSED
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.redis import Redis

STORED: Final = b"$SYS/broker/store/messages/bytes"
DROPPED: Final = b"$SYS/broker/publish/messages/dropped"
LOGS: Final = (b"$SYS/broker/log/N", b"$SYS/broker/log/E")
"""The broker's notices and errors (with `log_dest topic`): which clients connect and which are disconnected."""
WITHOUT_PREFIX: Final = "+/a/+/#"
"""Topics that an agent may use and nobody reads: below its user name, without the `i/` before it."""
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


async def run(
    url: str, watch: BrokerWatch, redis: Redis, timeline_counts: TimelineCounts, stop: asyncio.Event
) -> None:
    """Watch the broker's metrics, and what its log and stray messages tell of agents, until `stop`.

    If the broker refuses the account or the subscription, log a warning and wait for `stop`.
    """
    refusals = broker_log.RefusedLoginParser()
    try:
        async with connect(url) as client:
            await client.subscribe([topic.decode() for topic in (STORED, DROPPED, *LOGS)])
            with suppress(CannotStart):  # another broker can deny it
                await client.subscribe([WITHOUT_PREFIX])
            async for batch in client.batches(stop):
                batch.ack()
                refused: list[str | None] = []
                for _, topic, payload in batch.messages:
                    if topic in LOGS:
                        if event := broker_log.parse_line(payload):
                            timeline_counts.add(*event[:3], event.details, word=event.word)
                        if login := refusals.parse_line(payload):  # it also needs the lines about log-ins
                            refused.append(login.address)
                    elif topic.startswith(b"$SYS/"):
                        watch.process(topic, payload)
                    else:
                        _record_stray(timeline_counts, topic)
                if refused:
                    BROKER_REFUSED.add(len(refused))
                    with suppress(Unavailable):
                        await refused_logins.record(redis, refused, datetime.now(UTC))
    except CannotStart as exc:
        logger.bind(reason=str(exc)).warning("the broker's queue is not monitored: the broker refused access")
        await stop.wait()


def _record_stray(timeline_counts: TimelineCounts, topic: bytes) -> None:
    """Count a message on a topic that lacks the `i/` before the agent's user name: nobody reads it."""
    text = topic.decode("utf-8", "replace")
    user = "/".join(text.split("/")[:3])
    if agent := agent_of_user(user):
        shown = printable(text, 100)
        detail = f"nothing reads the topic {shown}: the agent's topics begin with i/{user}/"
        timeline_counts.add(
            *agent, MESSAGE_REFUSED, {"reason": "unknown_topic", "detail": detail}, word="no prefix"
        )
