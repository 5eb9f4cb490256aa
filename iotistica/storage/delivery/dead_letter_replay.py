"""Replays dead letters into their streams, or discards them."""

from collections.abc import Sequence
from typing import Any, Final

from iotistica.domain.delivery import topics
from iotistica.domain.delivery.topics import Stream
from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.delivery.dead_letters import DeadLetter
from iotistica.storage.delivery.streams import KIND_BY_NAME, encode
from iotistica.storage.redis import Redis, dead_letter_stream, guarded, ledger_key

FIRST_STREAM_KEY: Final = 3  # index of the first stream among the keys; Lua counts from 1
# A letter that no longer exists was replayed or discarded before, so it is not replayed twice.
REPLAY: Final = """
local replayed = 0
for i = 1, #ARGV, 6 do
    local id, stream, messages, received, attempts, size = unpack(ARGV, i, i + 5)
    if redis.call('XDEL', KEYS[1], id) == 1 then
        redis.call('XADD', KEYS[tonumber(stream)], '*', 'n', 1, 't', received, 'm', messages, 'a', attempts)
        redis.call('HINCRBY', KEYS[2], 'taken', 1)
        redis.call('HINCRBY', KEYS[2], 'waiting', 1)
        redis.call('HINCRBY', KEYS[2], 'dead_bytes', -size)
        replayed = replayed + 1
    end
end
return replayed
"""
DISCARD: Final = """
local gone = 0
for i = 1, #ARGV, 2 do
    if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
        redis.call('HINCRBY', KEYS[2], 'dead_bytes', -ARGV[i + 1])
        gone = gone + 1
    end
end
if gone > 0 then
    redis.call('HDEL', KEYS[2], 'dead_unkept')
end
return gone
"""


async def replay(redis: Redis, tenant: TenantId, letters: Sequence[DeadLetter], *, high_water_mark: int) -> int:
    """Replay letters into their streams and count them as accepted again; return how many. Incomplete ones stay.

    Readings that are stored already count as duplicates. A message that fails again becomes a new dead letter with
    one more attempt. Raises `Full` if a stream that a letter belongs to has `high_water_mark` entries or more.
    """
    arguments: list[Any] = []
    names = list(KIND_BY_NAME)
    targets: set[Stream] = set()
    for letter in letters:
        topic = letter.topic.encode("utf-8", "surrogateescape")
        if not letter.is_complete or letter.agent is None:
            continue
        name = topics.route(topic).stream
        targets.add(name)
        message = encode([(topic, letter.payload)])
        arguments += [
            letter.id,
            FIRST_STREAM_KEY + names.index(name),
            message,
            letter.received_us,
            letter.attempts,
            len(letter.payload),
        ]
    if not arguments:
        return 0
    keys = (
        dead_letter_stream(tenant),
        ledger_key(tenant),
        *(kind.stream(tenant) for kind in KIND_BY_NAME.values()),
    )
    with guarded(redis):
        for name in sorted(targets):
            if await redis.xlen(KIND_BY_NAME[name].stream(tenant)) >= high_water_mark:
                raise Full(f"The {name} stream is full. Wait until its messages are stored, then replay again.")
        return int(await redis.eval(REPLAY, len(keys), *keys, *arguments))


async def discard(redis: Redis, tenant: TenantId, letters: Sequence[DeadLetter]) -> int:
    """Discard letters; return how many were discarded."""
    arguments = [argument for letter in letters for argument in (letter.id, len(letter.payload))]
    if not arguments:
        return 0
    with guarded(redis):
        return int(await redis.eval(DISCARD, 2, dead_letter_stream(tenant), ledger_key(tenant), *arguments))
