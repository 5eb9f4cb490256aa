"""Rate limits, counted in Redis for all processes, and in this one while Redis is away."""

import asyncio
import hashlib
import time
from collections import Counter
from typing import Final, NamedTuple

from iotistica.errors import TooMany, Unavailable
from iotistica.storage.redis import Redis, guarded, limit_key

WINDOW_SECONDS: Final = 60  # seconds
WAIT_SECONDS: Final = 0.25  # seconds for Redis to answer; a request does not wait longer for its own bound
AWAY_SECONDS: Final = 2.0  # seconds without asking a Redis that did not answer
LOCAL_LIMIT: Final = 50_000  # subjects counted in this process at most


class RateLimit(NamedTuple):
    """So many a minute."""

    name: str
    per_minute: int


class RateLimiter:
    """Counts what somebody does in this minute."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away_until = 0.0
        self._local: Counter[str] = Counter()
        self._minute = 0

    async def hit(self, limit: RateLimit, subject: str, *, tenant: str | None = None, count: int = 1) -> None:
        """Count `count` more of somebody; raises `TooMany` beyond the limit. `count` 0 only looks."""
        now = time.time()
        minute, left = int(now // WINDOW_SECONDS), WINDOW_SECONDS - now % WINDOW_SECONDS
        # A digest: an address, or a name somebody tried, is nobody's business in Redis, and may be long.
        digest = hashlib.sha256(subject.encode("utf-8", "replace")).hexdigest()[:24]
        used = await self._add(limit_key(tenant, limit.name, digest, minute), minute, count)
        if used > limit.per_minute or (count == 0 and used >= limit.per_minute):
            raise TooMany(f"more than {limit.per_minute} a minute; wait {left:.0f} s", seconds=left)

    async def take(self, limit: RateLimit, tenant: str, minute: int, count: int) -> int:
        """How many of `count` are within a tenant's limit for a minute (since the epoch); all are counted.

        A negative count gives back what was taken and came to nothing.
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
        if minute > self._minute or len(self._local) > LOCAL_LIMIT:
            self._local.clear()
            self._minute = minute
        self._local[key] += count
        return self._local[key]

    async def _count_in_redis(self, key: str, count: int) -> int:
        with guarded(self._redis):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.incrby(key, count)
                pipe.expire(key, 2 * WINDOW_SECONDS)
                used, _ = await pipe.execute()
        return int(used)
