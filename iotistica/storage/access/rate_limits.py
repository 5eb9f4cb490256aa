"""Rate limits, counted in Redis for all processes, or in this process while Redis is unavailable."""

import asyncio
import hashlib
import time
from typing import Final, NamedTuple

from cachetools import LRUCache

from iotistica.errors import TooMany, Unavailable
from iotistica.storage.redis import Redis, guarded, limit_key

WINDOW_SECONDS: Final = 60  # seconds
WAIT_SECONDS: Final = 0.25  # seconds for Redis to answer; a request does not wait longer for its rate limit
AWAY_SECONDS: Final = 2.0  # seconds without calls after Redis did not answer
LOCAL_LIMIT: Final = 50_000  # subjects counted in this process; above that, the least recently counted are dropped


class RateLimit(NamedTuple):
    """A named limit per minute."""

    name: str
    per_minute: int


class RateLimiter:
    """Counts the calls of each subject in the current minute."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away_until = 0.0
        self._local: LRUCache[str, int] = LRUCache(LOCAL_LIMIT)
        self._minute = 0

    async def hit(self, limit: RateLimit, subject: str, *, tenant: str | None = None, count: int = 1) -> None:
        """Add `count` to a subject; raises `TooMany` above the limit. `count` 0 checks whether it is reached."""
        now = time.time()
        minute, left = int(now // WINDOW_SECONDS), WINDOW_SECONDS - now % WINDOW_SECONDS
        # A digest, because an address or an attempted name is private and can be long.
        digest = hashlib.sha256(subject.encode("utf-8", "replace")).hexdigest()[:24]
        used = await self._add(limit_key(tenant, limit.name, digest, minute), minute, count)
        if used > limit.per_minute or (count == 0 and used >= limit.per_minute):
            raise TooMany(
                f"The limit of {limit.per_minute} per minute is reached. Wait {left:.0f} s.", seconds=left
            )

    async def take(self, limit: RateLimit, tenant: str, minute: int, count: int) -> int:
        """Add `count` for a tenant in a minute (since the epoch); return how many of them are within the limit.

        A negative count takes back what was counted but not used.
        """
        used = await self._add(limit_key(tenant, limit.name, "all", minute), minute, count)
        return max(min(count, limit.per_minute - (used - count)), 0)

    async def _add(self, key: str, minute: int, count: int) -> int:
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    return await self._count_in_redis(key, count)
            except (Unavailable, TimeoutError):
                self._away_until = time.monotonic() + AWAY_SECONDS
        if minute > self._minute:
            self._local.clear()  # the counts of earlier minutes are no longer needed
            self._minute = minute
        used = self._local.get(key, 0) + count
        self._local[key] = used
        return used

    async def _count_in_redis(self, key: str, count: int) -> int:
        with guarded(self._redis):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.incrby(key, count)
                pipe.expire(key, 2 * WINDOW_SECONDS)
                used, _ = await pipe.execute()
        return int(used)
