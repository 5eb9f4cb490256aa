"""Messages to agents: they wait in a stream of the tenant until whoever talks to the broker has published them."""

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.redis import OUTBOUND_TENANTS, Redis, guarded, outbound_stream

TENANT_LIMIT: Final = 50_000  # messages of a tenant that wait
PUBLISH_LIMIT: Final = 200  # published at a time


class OutboundMessage(NamedTuple):
    """A message; `expires_at`, in seconds since the epoch, it is worth sending."""

    topic: str
    payload: bytes
    expires_at: float


class QueuedMessage(NamedTuple):
    id: bytes
    message: OutboundMessage


async def enqueue(
    redis: Redis, tenant: TenantId, messages: Sequence[OutboundMessage], *, most: int = TENANT_LIMIT
) -> None:
    """Let messages be published; raises `Unavailable`, and `Full` if more than `most` wait."""
    if not messages:
        return
    key = outbound_stream(tenant)
    with guarded(redis):
        if await redis.xlen(key) + len(messages) > most:
            raise Full("too many messages wait for the broker: is it away?")
        async with redis.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.execute_command(
                    "XADD",
                    key,
                    "*",
                    "topic",
                    message.topic,
                    "payload",
                    message.payload,
                    "until",
                    message.expires_at,
                )
            pipe.sadd(OUTBOUND_TENANTS, tenant)
            await pipe.execute()


async def tenants_with_messages(redis: Redis) -> list[TenantId]:
    """Those whose messages wait, or waited just now."""
    with guarded(redis):
        found: Any = await redis.smembers(OUTBOUND_TENANTS)
    return sorted(TenantId(one.decode()) for one in found)


async def next_messages(redis: Redis, tenant: TenantId) -> list[QueuedMessage]:
    """The oldest messages of a tenant; those that nobody wants any more are removed."""
    key = outbound_stream(tenant)
    with guarded(redis):
        rows: Any = await redis.xrange(key, count=PUBLISH_LIMIT)
        if not rows:
            await redis.srem(OUTBOUND_TENANTS, tenant)
            if await redis.xlen(key):  # came between the two
                await redis.sadd(OUTBOUND_TENANTS, tenant)
            return []
    found = [
        QueuedMessage(id_, OutboundMessage(facts[b"topic"].decode(), facts[b"payload"], float(facts[b"until"])))
        for id_, facts in rows
    ]
    if late := [one.id for one in found if one.message.expires_at < time.time()]:
        await remove(redis, tenant, late)
    return [one for one in found if one.message.expires_at >= time.time()]


async def remove(redis: Redis, tenant: TenantId, ids: Sequence[bytes]) -> None:
    """Remove what was published."""
    if ids:
        with guarded(redis):
            await redis.xdel(outbound_stream(tenant), *ids)
