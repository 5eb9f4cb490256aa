"""Messages to agents: they wait in a stream of the tenant until an MQTT process has published them."""

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.redis import OUTBOUND_TENANTS, Redis, guarded, outbound_stream

TENANT_LIMIT: Final = 50_000  # waiting messages of a tenant
PUBLISH_LIMIT: Final = 200  # messages published at a time


class OutboundMessage(NamedTuple):
    """A message to an agent; it is not sent after `expires_at`, in seconds since the epoch."""

    topic: str
    payload: bytes
    expires_at: float


class QueuedMessage(NamedTuple):
    id: bytes
    message: OutboundMessage


async def enqueue(
    redis: Redis, tenant: TenantId, messages: Sequence[OutboundMessage], *, most: int = TENANT_LIMIT
) -> None:
    """Queue messages for publishing; raises `Unavailable`, and `Full` if more than `most` would wait."""
    if not messages:
        return
    key = outbound_stream(tenant)
    with guarded(redis):
        if await redis.xlen(key) + len(messages) > most:
            raise Full("Too many messages wait for the broker; check that it is running.")
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
    """Return the tenants whose messages wait, or waited until just now."""
    with guarded(redis):
        members: Any = await redis.smembers(OUTBOUND_TENANTS)
    return sorted(TenantId(member.decode()) for member in members)


async def next_messages(redis: Redis, tenant: TenantId) -> list[QueuedMessage]:
    """Return the oldest messages of a tenant, at most `PUBLISH_LIMIT`; expired messages are removed."""
    key = outbound_stream(tenant)
    with guarded(redis):
        rows: Any = await redis.xrange(key, count=PUBLISH_LIMIT)
        if not rows:
            await redis.srem(OUTBOUND_TENANTS, tenant)
            if await redis.xlen(key):  # messages were added between the two commands
                await redis.sadd(OUTBOUND_TENANTS, tenant)
            return []
    queued = [
        QueuedMessage(id_, OutboundMessage(facts[b"topic"].decode(), facts[b"payload"], float(facts[b"until"])))
        for id_, facts in rows
    ]
    if expired := [item.id for item in queued if item.message.expires_at < time.time()]:
        await remove(redis, tenant, expired)
    return [item for item in queued if item.message.expires_at >= time.time()]


async def remove(redis: Redis, tenant: TenantId, ids: Sequence[bytes]) -> None:
    """Remove messages that were published or have expired."""
    if ids:
        with guarded(redis):
            await redis.xdel(outbound_stream(tenant), *ids)
