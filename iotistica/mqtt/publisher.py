"""Publishes the queued messages for agents over the intake's connection: one process talks to the broker."""

import asyncio
from typing import Final

from iotistica.errors import Unavailable
from iotistica.mqtt.client import Client
from iotistica.storage.delivery import outbound
from iotistica.storage.redis import Redis
from iotistica.supervise import Group, sleep

EVERY: Final = 0.1  # seconds between checks of the queues
ACK_SECONDS: Final = 10.0  # for the broker's acknowledgements


def publish_queued(redis: Redis, client: Client) -> Group:
    """Return a group that publishes with QoS 1, never retained, and removes messages after their PUBACK."""

    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set() and not client.is_lost:
            try:
                for tenant in await outbound.tenants_with_messages(redis):
                    queued = await outbound.next_messages(redis, tenant)
                    acks = [await client.publish(item.message.topic, item.message.payload) for item in queued]
                    async with asyncio.timeout(ACK_SECONDS):
                        await asyncio.gather(*acks)
                    await outbound.remove(redis, tenant, [item.id for item in queued])
            except (Unavailable, TimeoutError):
                await sleep(1.0, stop)
            await sleep(EVERY, stop)

    return run
