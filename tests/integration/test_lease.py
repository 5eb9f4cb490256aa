"""A lease is kept for as long as its block lasts, and not a moment longer."""

import asyncio

import pytest

from iotistica.errors import Superseded, Unavailable
from iotistica.storage import lease
from iotistica.storage.redis import Redis


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)


async def test_no_renewal_outlives_its_block(redis: Redis, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a driver makes an error of the cancel that ends it: the next one gets the lease at once."""
    asked = asyncio.Event()

    async def swallowing(*_: object) -> bool:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise Unavailable from None
        return True

    monkeypatch.setattr(lease, "_renew", swallowing)
    stop = asyncio.Event()
    with pytest.raises(ValueError, match="broken"):
        async with lease.hold(redis, "test", stop):
            await asked.wait()
            raise ValueError("broken")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "renew lease:test"]
    async with asyncio.timeout(1), lease.hold(redis, "test", stop) as fence:
        assert fence is not None


async def test_who_lost_it_is_told_inside_the_block_alone(redis: Redis, quick: None) -> None:
    """Another one took it over; what comes after the block is not cancelled."""
    stop = asyncio.Event()
    with pytest.raises(Superseded):
        async with lease.hold(redis, "test", stop):
            await redis.set("lease:test", "another")
            await asyncio.sleep(60)
    await asyncio.sleep(0.05)
    assert await redis.get("lease:test") == b"another"
    await redis.delete("lease:test")
