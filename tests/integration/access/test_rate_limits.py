"""Rate limits with and without Redis."""

import time
from uuid import uuid4

import pytest

from iotistica.errors import TooMany
from iotistica.storage import redis as redis_
from iotistica.storage.access.rate_limits import RateLimit, RateLimiter
from iotistica.storage.redis import Redis


async def count(limits: RateLimiter, limit: RateLimit, subject: str, times: int) -> int:
    """Return how many of `times` calls were let through."""
    passed = 0
    for _ in range(times):
        try:
            await limits.hit(limit, subject, tenant="0123456789ab")
            passed += 1
        except TooMany as exc:
            assert 1 <= exc.seconds <= 60
    return passed


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock, so that no minute ends during a test."""
    monkeypatch.setattr("iotistica.storage.access.rate_limits.time.time", lambda: 1_000_000.0)


@pytest.mark.usefixtures("minute")
async def test_processes_count_together(redis: Redis) -> None:
    """Two processes share the count of a subject; another subject has a separate count."""
    limit, subject = RateLimit("test", 5), str(uuid4())
    one, two = RateLimiter(redis), RateLimiter(redis)
    assert await count(one, limit, subject, 3) + await count(two, limit, subject, 4) == 5
    assert await count(one, limit, str(uuid4()), 1) == 1


@pytest.mark.usefixtures("minute")
async def test_without_redis_each_process_counts_alone(redis: Redis) -> None:
    """Without Redis the same limit holds in each process, and no request waits for Redis."""
    away = redis_.client("redis://127.0.0.1:1/0")
    limit, limits = RateLimit("test", 5), RateLimiter(away)
    began = time.monotonic()
    assert await count(limits, limit, str(uuid4()), 50) == 5
    assert time.monotonic() - began < 2
    assert await count(limits, limit, str(uuid4()), 1) == 1
    await away.aclose()


@pytest.mark.usefixtures("minute")
async def test_a_look_counts_nothing(redis: Redis) -> None:
    """`count=0` only checks whether the limit is reached."""
    limit, limits, subject = RateLimit("test", 2), RateLimiter(redis), str(uuid4())
    for _ in range(10):
        await limits.hit(limit, subject, count=0)
    await limits.hit(limit, subject, count=2)
    with pytest.raises(TooMany):
        await limits.hit(limit, subject, count=0)


@pytest.mark.usefixtures("minute")
async def test_what_is_beyond_is_told_apart(redis: Redis) -> None:
    """If a batch crosses the limit, the part within the limit is allowed."""
    limits, limit, tenant = RateLimiter(redis), RateLimit("readings", 100), uuid4().hex[:12]
    assert [await limits.take(limit, tenant, 7, n) for n in (60, 60, 60)] == [60, 40, 0]
    assert await limits.take(limit, tenant, 8, 100) == 100
    await limits.take(limit, tenant, 8, -100)
    assert await limits.take(limit, tenant, 8, 100) == 100
