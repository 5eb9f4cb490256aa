"""Publishes what waits for agents, on the connection of the intake: one process talks to the broker."""

import asyncio
from typing import Final

from iotistica.errors import Unavailable
from iotistica.mqtt.client import Client
from iotistica.storage.delivery import outbound
from iotistica.storage.redis import Redis
from iotistica.supervise import Group, sleep

EVERY: Final = 0.1  # seconds between looks
ACK_SECONDS: Final = 10.0  # for the broker's acknowledgement


def publish_queued(redis: Redis, client: Client) -> Group:
    """Publish with QoS 1, never retained; a message is removed once the broker has it."""

    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set() and not client.is_lost:
            try:
                for tenant in await outbound.tenants_with_messages(redis):
                    found = await outbound.next_messages(redis, tenant)
                    acks = [await client.publish(one.message.topic, one.message.payload) for one in found]
                    async with asyncio.timeout(ACK_SECONDS):
                        await asyncio.gather(*acks)
                    await outbound.remove(redis, tenant, [one.id for one in found])
            except (Unavailable, TimeoutError):
                await sleep(1.0, stop)
            await sleep(EVERY, stop)

    return run
