"""What happens now, told to whoever listens: nothing waits for a listener, and nothing is kept for one."""

import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.redis import Redis, guarded, live_channel, watched_key

LiveKind = Literal["state", "metrics", "readings", "logs", "events"]
KINDS: Final[tuple[LiveKind, ...]] = ("state", "metrics", "readings", "logs", "events")
ON_DEMAND_KINDS: Final[tuple[LiveKind, ...]] = ("readings", "logs")
"""Published only for agents that somebody watches."""
WATCH_SECONDS: Final = 30.0  # seconds that an agent is watched for, unless that is renewed
WATCH_CACHE_SECONDS: Final = 1.0  # seconds for which is believed who is watched


class LiveUpdate(NamedTuple):
    """One message to the listeners of an agent."""

    tenant: TenantId
    agent: UUID
    kind: LiveKind
    content: dict[str, Any]


async def publish(redis: Redis, news: Sequence[LiveUpdate]) -> None:
    """Tell the listeners; if Redis is away they miss it, and begin with a snapshot when they come back."""
    if not news:
        return
    try:
        with guarded(redis):
            async with redis.pipeline(transaction=False) as pipe:
                for one in news:
                    pipe.publish(live_channel(one.tenant, one.agent, one.kind), msgspec.json.encode(one.content))
                await pipe.execute()
    except Unavailable:
        return


async def watch(redis: Redis, tenant: TenantId, agents: Collection[UUID]) -> bool:
    """Have everything of these agents published for a while; raises `Unavailable`.

    Returns whether some were not watched before: those who store find that out within `WATCH_CACHE_SECONDS`.
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
    """The agents that somebody watches, as this process knows it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: dict[TenantId, tuple[float, frozenset[UUID]]] = {}

    async def of_tenant(self, tenant: TenantId) -> frozenset[UUID]:
        """Those of a tenant; nobody, if Redis is away."""
        until, agents = self._known.get(tenant, (0.0, frozenset[UUID]()))
        if time.monotonic() < until:
            return agents
        try:
            with guarded(self._redis):
                found: Any = await self._redis.zrangebyscore(watched_key(tenant), time.time(), "+inf")
        except Unavailable:
            found = ()
        agents = frozenset(UUID(one.decode()) for one in found)
        self._known[tenant] = time.monotonic() + WATCH_CACHE_SECONDS, agents
        return agents
