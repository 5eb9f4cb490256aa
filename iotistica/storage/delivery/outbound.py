"""Messages to agents: they wait in a stream of the tenant until whoever talks to the broker has published them."""

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.redis import OUTBOUND, Redis, outbound_stream, translated

MOST: Final = 50_000  # messages of a tenant that wait
PORTION: Final = 200  # published at a time


class Outgoing(NamedTuple):
    """A message; `until`, in seconds since the epoch, it is worth sending."""

    topic: str
    payload: bytes
    until: float


class Waiting(NamedTuple):
    id: bytes
    message: Outgoing


async def send(redis: Redis, tenant: TenantId, messages: Sequence[Outgoing], *, most: int = MOST) -> None:
    """Let messages be published; raises `Unavailable`, and `Full` if more than `most` wait."""
    if not messages:
        return
    key = outbound_stream(tenant)
    with translated(redis):
        if await redis.xlen(key) + len(messages) > most:
            raise Full("too many messages wait for the broker: is it away?")
        async with redis.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.execute_command(
                    "XADD", key, "*", "topic", message.topic, "payload", message.payload, "until", message.until
                )
            pipe.sadd(OUTBOUND, tenant)
            await pipe.execute()


async def tenants(redis: Redis) -> list[TenantId]:
    """Those whose messages wait, or waited just now."""
    with translated(redis):
        found: Any = await redis.smembers(OUTBOUND)
    return sorted(TenantId(one.decode()) for one in found)


async def waiting(redis: Redis, tenant: TenantId) -> list[Waiting]:
    """The oldest messages of a tenant; those that nobody wants any more are removed."""
    key = outbound_stream(tenant)
    with translated(redis):
        rows: Any = await redis.xrange(key, count=PORTION)
        if not rows:
            await redis.srem(OUTBOUND, tenant)
            if await redis.xlen(key):  # came between the two
                await redis.sadd(OUTBOUND, tenant)
            return []
    found = [
        Waiting(id_, Outgoing(facts[b"topic"].decode(), facts[b"payload"], float(facts[b"until"])))
        for id_, facts in rows
    ]
    if late := [one.id for one in found if one.message.until < time.time()]:
        await done(redis, tenant, late)
    return [one for one in found if one.message.until >= time.time()]


async def done(redis: Redis, tenant: TenantId, ids: Sequence[bytes]) -> None:
    """Remove what was published."""
    if ids:
        with translated(redis):
            await redis.xdel(outbound_stream(tenant), *ids)
