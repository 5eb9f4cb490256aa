"""Moves messages from the broker into the inbox: makes each batch durable, then acknowledges it, in order."""

import asyncio
from collections.abc import Callable
from typing import Final

from loguru import logger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from iotistica.domain.delivery import topics
from iotistica.errors import Unavailable
from iotistica.instruments import PAUSES
from iotistica.mqtt.client import Client, ReceivedBatch, connect
from iotistica.mqtt.publisher import publish_queued
from iotistica.platform_alarms import Alarms
from iotistica.storage import lease
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.delivery.inbox import Inbox, PartlyAcceptedError
from iotistica.storage.redis import Redis
from iotistica.supervise import Group, run_beside

PAUSED: Final = "intake_paused"
"""Alarm: the intake accepts no messages from the broker."""


class Intake:
    """Receives messages from the broker for as long as this process holds the intake's lease."""

    def __init__(
        self,
        redis: Redis,
        inbox: Inbox,
        *,
        url: str,
        alarms: Alarms,
        breaker: CircuitBreaker,
        opened: Callable[[], None],
        watch: Group,
    ) -> None:
        """`opened` is called once the session and its subscriptions exist; `breaker` guards the broker.

        The group `watch` runs beside the intake.
        """
        self._redis = redis
        self._inbox = inbox
        self._url = url
        self._alarms = alarms
        self._breaker = breaker
        self._opened = opened
        self._watch = watch

    async def run(self, stop: asyncio.Event) -> None:
        """Receive under one lease and one connection; raises the error that ends either."""
        async with lease.hold(self._redis, "intake", stop) as fence:
            if fence is None:
                return
            async with (
                connect(self._url, keep_session=True, breaker=self._breaker) as client,
                run_beside("broker-watch", self._watch),
                run_beside("publish", publish_queued(self._redis, client)),
            ):
                await client.subscribe(topics.FILTERS)
                client.unsubscribe(topics.EARLIER_FILTERS)
                self._opened()
                logger.bind(fence=fence).info("intake is open")
                async for batch in client.batches(stop):
                    await self._take(batch, client, stop)

    async def _take(self, batch: ReceivedBatch, client: Client, stop: asyncio.Event) -> None:
        """Make a batch durable, then acknowledge it.

        Retries while that fails. Raises `Unavailable` if `stop` is set, or the connection lost, before it succeeds.
        """
        messages, received = [(topic, payload) for _, topic, payload in batch.messages], None
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Unavailable),
                wait=wait_random_exponential(multiplier=0.1, max=2),
                stop=lambda _: stop.is_set() or client.is_lost,
                before_sleep=self._paused,
                reraise=True,
            ):
                with attempt:
                    try:
                        await self._inbox.accept(messages, received)
                    except PartlyAcceptedError as exc:
                        messages, received = exc.left, exc.received
                        raise
        finally:  # also after a lost connection: the next one may deliver no message that would clear the alarm
            self._alarms.set(PAUSED, None)
        batch.ack()

    def _paused(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._alarms.set(PAUSED, f"the intake is paused, and the broker queues the messages in its memory: {error}")
        if state.attempt_number == 1:
            PAUSES.add(1, {"reason": type(error).__name__})
