"""Parked messages: they wait for a key dictionary, and become dead letters if it does not arrive in time."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dead_letters
from iotistica.storage.delivery.acknowledgement import redis_keys
from iotistica.storage.delivery.streams import READINGS, encode
from iotistica.storage.redis import Redis, guarded, parked_stream

PATIENCE_SECONDS: Final = 3600.0  # seconds that a message waits for its dictionary
PAGE: Final = 500  # parked messages read at a time

Facts = dict[bytes, bytes]

RELEASE: Final = """
local released = 0
for i = 1, #ARGV, 4 do
    local id, messages, received, size = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    if redis.call('XDEL', KEYS[4], id) == 1 then
        redis.call('XADD', KEYS[1], '*', 'n', 1, 't', received, 'm', messages)
        redis.call('HINCRBY', KEYS[3], 'parked_bytes', -size)
        released = released + 1
    end
end
return released
"""
EXPIRE: Final = (
    dead_letters.ADD_LETTER_FUNCTION
    + """
for i = 1, #ARGV, 4 do
    local id, topic, payload, received = unpack(ARGV, i, i + 3)
    if redis.call('XDEL', KEYS[4], id) == 1 then
        redis.call('HINCRBY', KEYS[3], 'parked_bytes', -#payload)
        redis.call('HINCRBY', KEYS[3], 'waiting', -1)
        redis.call('HINCRBY', KEYS[3], 'refused', 1)
        put_letter(KEYS[2], KEYS[3], KEYS[4], topic, payload, received, 'no_dictionary',
            'its dictionary did not come in time', 1)
    end
end
"""
)


async def release(redis: Redis, tenant: TenantId, is_due: Callable[[UUID, int, int], bool]) -> None:
    """Move parked messages back to the stream of readings.

    `is_due` decides by the agent, the version and the revision of the dictionary known when the message was parked.
    """
    async for entries in _pages(redis, tenant):
        arguments: list[Any] = []
        for id_, facts in entries:
            if is_due(UUID(facts[b"agent"].decode()), int(facts[b"v"]), int(facts[b"revision"])):
                message = [(facts[b"topic"], facts[b"payload"])]
                arguments += [id_, encode(message), facts[b"received"], len(facts[b"payload"])]
        if arguments:
            with guarded(redis):
                await redis.eval(RELEASE, 4, *redis_keys(tenant, READINGS.stream(tenant)), *arguments)


async def expire(redis: Redis, tenant: TenantId, *, now: float) -> int:
    """Turn messages that were parked for `PATIENCE_SECONDS` into dead letters, at most `PAGE`; return how many.

    `now` is in seconds since the epoch.
    """
    before = int((now - PATIENCE_SECONDS) * 1000)
    entries = await _range(redis, tenant, "-", str(before))
    with guarded(redis):
        arguments: list[Any] = []
        for id_, facts in entries:
            arguments += [id_, facts[b"topic"], facts[b"payload"], facts[b"received"]]
        if arguments:
            await redis.eval(EXPIRE, 4, *redis_keys(tenant, READINGS.stream(tenant)), *arguments)
    return len(entries)


async def awaited_dictionaries(redis: Redis, tenant: TenantId) -> set[tuple[UUID, int]]:
    """Return the agents and versions of the dictionaries that parked messages wait for."""
    return {
        (UUID(facts[b"agent"].decode()), int(facts[b"v"]))
        async for entries in _pages(redis, tenant)
        for _, facts in entries
    }


async def _range(redis: Redis, tenant: TenantId, first: str, last: str) -> list[tuple[bytes, Facts]]:
    with guarded(redis):
        rows: Any = await redis.xrange(parked_stream(tenant), min=first, max=last, count=PAGE)
    return list(rows)


async def _pages(redis: Redis, tenant: TenantId) -> AsyncIterator[list[tuple[bytes, Facts]]]:
    after = "-"
    while True:
        entries = await _range(redis, tenant, after, "+")
        if not entries:
            return
        yield entries
        after = f"({entries[-1][0].decode()}"
