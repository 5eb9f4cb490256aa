"""Publishing of live updates: publishers do not wait for listeners, and no updates are kept for them."""

import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from cachetools import TTLCache

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.redis import Redis, guarded, live_channel, watched_key

LiveKind = Literal["state", "metrics", "readings", "logs", "events"]
KINDS: Final[tuple[LiveKind, ...]] = ("state", "metrics", "readings", "logs", "events")
ON_DEMAND_KINDS: Final[tuple[LiveKind, ...]] = ("readings", "logs")
"""Kinds that are published only for watched agents, those that some listener has selected."""
WATCH_SECONDS: Final = 30.0  # seconds that an agent stays watched without a renewal
WATCH_CACHE_SECONDS: Final = 1.0  # seconds that a process caches which agents are watched
TENANTS_LIMIT: Final = 10_000  # tenants whose watched agents are cached


class LiveUpdate(NamedTuple):
    """An update for the listeners of an agent."""

    tenant: TenantId
    agent: UUID
    kind: LiveKind
    content: dict[str, Any]


async def publish(redis: Redis, news: Sequence[LiveUpdate]) -> None:
    """Publish updates; if Redis is unavailable, listeners miss them and reconnect to get a snapshot."""
    if not news:
        return
    try:
        with guarded(redis):
            async with redis.pipeline(transaction=False) as pipe:
                for update in news:
                    channel = live_channel(update.tenant, update.agent, update.kind)
                    pipe.publish(channel, msgspec.json.encode(update.content))
                await pipe.execute()
    except Unavailable:
        return


async def watch(redis: Redis, tenant: TenantId, agents: Collection[UUID]) -> bool:
    """Mark these agents as watched for `WATCH_SECONDS`; raises `Unavailable`.

    Returns whether some were not watched before: the publishing processes notice that within `WATCH_CACHE_SECONDS`.
    """
    if not agents:
        return False
    key, now = watched_key(tenant), time.time()
    with guarded(redis):
        async with redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(key, "-inf", now)
            pipe.zadd(key, {str(agent): now + WATCH_SECONDS for agent in agents})
            pipe.expire(key, int(WATCH_SECONDS * 2))
            answers: list[Any] = await pipe.execute()
    return bool(answers[1])


class WatchedAgents:
    """The watched agents, cached by this process for `WATCH_CACHE_SECONDS`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._cache: TTLCache[TenantId, frozenset[UUID]] = TTLCache(
            TENANTS_LIMIT, WATCH_CACHE_SECONDS, time.monotonic
        )

    async def of_tenant(self, tenant: TenantId) -> frozenset[UUID]:
        """Return the watched agents of a tenant; none while Redis is unavailable."""
        cached = self._cache.get(tenant)
        if cached is not None:
            return cached
        try:
            with guarded(self._redis):
                members: Any = await self._redis.zrangebyscore(watched_key(tenant), time.time(), "+inf")
        except Unavailable:
            members = ()
        agents = frozenset(UUID(member.decode()) for member in members)
        self._cache[tenant] = agents
        return agents
