"""Streams and leases on a real Valkey."""

import asyncio
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotistica.domain.ids import TenantId
from iotistica.errors import CannotStart, Superseded
from iotistica.storage import lease
from iotistica.storage import redis as redis_
from iotistica.storage.delivery import acknowledgement, stream_stats, streams
from iotistica.storage.delivery.acknowledgement import NotStored
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.streams import ENTRY_BYTES, READINGS, _chunks
from iotistica.storage.redis import Redis


def new_tenant() -> TenantId:
    return TenantId(uuid4().hex[:12])


MARK = 1_000_000


async def test_what_is_appended_is_read_once_and_gone_when_finished(redis: Redis) -> None:
    """Bytes, order and receive time are kept; the ledger's `waiting` returns to 0."""
    one, two = new_tenant(), new_tenant()
    batches = {(one, READINGS): [(b"t/%d" % n, bytes([n])) for n in range(3)], (two, READINGS): [(b"u", b"\xff\0")]}
    await streams.append(redis, batches, received=123, high_water_mark=MARK)
    entries = await streams.read(redis, [one, two], "c", count=10)
    entries += await streams.read(redis, [one, two], "c", count=10)  # the first read created the groups
    assert {(e.tenant, e.received, tuple(e.messages)) for e in entries} == {
        (tenant, 123, tuple(messages)) for (tenant, _), messages in batches.items()
    }
    assert await streams.read(redis, [one, two], "c", count=10) == []
    assert [e.id for e in await streams.read_pending(redis, [one], "c", count=10)] == [entries[0].id]
    assert await stream_stats.pending_entry_ids(redis, one) == [entries[0].id.decode()]
    letter = NewDeadLetter(b"t/1", b"\1", 123, "bad_json", "why")
    for _ in range(2):  # a second call, as after a lost reply, changes nothing
        await acknowledgement.acknowledge(redis, entries, {entries[0].key: NotStored([letter])})
    state = (await stream_stats.stream_stats(redis, [one], now=0.0))[0]
    assert (state.taken, state.waiting, state.entries, state.dead) == (3, 0, 0, 1)
    assert await stream_stats.pending_entry_ids(redis, one) == []


async def test_a_full_stream_takes_nothing_and_others_do(redis: Redis) -> None:
    """A full stream is returned and not appended to; messages of other tenants are appended."""
    one, two = (new_tenant(), READINGS), (new_tenant(), READINGS)
    for _ in range(2):
        assert await streams.append(redis, {one: [(b"t", b"x")]}, received=1, high_water_mark=2) == set()
    assert await streams.append(
        redis, {two: [(b"t", b"x")], one: [(b"t", b"x")]}, received=1, high_water_mark=2
    ) == {one}
    assert (await stream_stats.stream_stats(redis, [one[0]], now=0.0))[0].taken == 2
    assert (await stream_stats.stream_stats(redis, [two[0]], now=0.0))[0].taken == 1


async def test_entries_of_a_dead_consumer_are_taken_over(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that a consumer read but did not acknowledge go to another consumer after `STALE_MS`."""
    tenant = new_tenant()
    await streams.create_groups(redis, [tenant], READINGS)
    await streams.append(redis, {(tenant, READINGS): [(b"t", b"x")]}, received=1, high_water_mark=MARK)
    (entry,) = await streams.read(redis, [tenant], "dead", count=1)
    assert await streams.claim_stale(redis, [tenant], "alive", count=1) == []
    monkeypatch.setattr(streams, "STALE_MS", 0)
    (taken,) = await streams.claim_stale(redis, [tenant], "alive", count=1)
    assert taken == entry


@given(st.lists(st.integers(0, ENTRY_BYTES * 2), max_size=40))
@settings(suppress_health_check=[HealthCheck.large_base_example, HealthCheck.too_slow], max_examples=50)
def test_entries_are_bounded(sizes: list[int]) -> None:
    """No entry is larger than its limit unless a single message is, and no message is lost or reordered."""
    messages = [(b"t", b"\0" * size) for size in sizes]
    chunks = list(_chunks(messages)) if messages else []
    assert [message for chunk in chunks for message in chunk] == messages
    for chunk in chunks:
        assert sum(len(payload) for _, payload in chunk) <= ENTRY_BYTES or len(chunk) == 1


async def test_one_at_a_time_holds_a_lease_and_fences_rise(redis: Redis) -> None:
    """A standby waits until the holder releases the lease; its fencing number is higher."""
    name, stop = f"test-{uuid4()}", asyncio.Event()
    async with lease.hold(redis, name, stop) as first:
        waiting = asyncio.create_task(_hold(redis, name, stop))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    second = await asyncio.wait_for(waiting, 5)
    assert first is not None
    assert second is not None
    assert second > first
    stop.set()
    async with lease.hold(redis, name, stop) as third:
        assert third is None


async def _hold(redis: Redis, name: str, stop: asyncio.Event) -> int | None:
    async with lease.hold(redis, name, stop) as fence:
        return fence


async def test_a_holder_that_was_superseded_is_told(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of the superseded holder is canceled, and it does not touch the new holder's lease."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    name = f"test-{uuid4()}"
    with pytest.raises(Superseded):
        async with lease.hold(redis, name, asyncio.Event()):
            await redis.set(f"lease:{name}", "another")
            await asyncio.sleep(5)
    assert await redis.get(f"lease:{name}") == b"another"


async def test_a_redis_that_would_lose_data_is_refused(redis: Redis) -> None:
    """If the default user lacks permissions, Redis drops transactions when it replays its append-only file."""
    await redis_.check_configuration(redis)
    # redis-py has no types for `execute_command`.
    await redis.execute_command("ACL", "SETUSER", "default", "-@all", "+ping")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(CannotStart, match=r"does not have \+@all"):
            await redis_.check_configuration(redis)
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


async def test_a_lease_that_could_not_be_given_back_is_ours_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that could not release its lease does not wait for itself once Redis is available again."""
    name, release = f"test-{uuid4()}", lease._release

    async def away(redis: Redis, key: str, token: str) -> None:
        monkeypatch.setattr(lease, "_release", release)
        redis.unreleased[key] = token

    monkeypatch.setattr(lease, "_release", away)
    async with lease.hold(redis, name, asyncio.Event()) as first:
        pass
    async with asyncio.timeout(1), lease.hold(redis, name, asyncio.Event()) as second:
        assert first is not None
        assert second is not None
        assert second > first
