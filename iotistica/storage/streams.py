"""Streams between the intake and its consumers: a batch of messages is one entry."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage import dead_letters
from iotistica.storage.dead_letters import DeadLetter
from iotistica.storage.redis import (
    dead_letter_stream,
    ledger_key,
    readings_stream,
    translated,
    writers_group,
)

Message = tuple[bytes, bytes]
"""Topic and payload, as they came."""

ENTRY_BYTES: Final = 512 << 10  # of payload in one entry, unless one message alone is larger
ENTRY_MESSAGES: Final = 1000
OPEN: Final = 100_000  # entries in work at most: 64 a consumer
MEMORY_MARK: Final = 0.8  # share of Redis's memory beyond which nothing is appended
STALE: Final = 60_000  # ms without an acknowledgement after which another consumer takes an entry over

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode


class Entry(NamedTuple):
    """One entry as a consumer gets it; `received` of its first message in us since the epoch."""

    tenant: TenantId
    id: bytes
    received: int
    messages: list[Message]

    @property
    def key(self) -> "EntryKey":
        return self.tenant, self.id.decode()


EntryKey = tuple[TenantId, str]
"""What tells an entry from every other."""


async def append(redis: Redis, batches: Mapping[TenantId, Sequence[Message]], *, received: int, mark: int) -> None:
    """Append each tenant's messages to its stream, and count them as taken in, in one transaction.

    When this returns they are as durable as Redis is. Raises `Full` when a stream holds `mark` entries
    (nothing was appended to any), `Unavailable` when Redis is away (it may or may not have them).
    """
    with translated():
        async with redis.pipeline(transaction=False) as sizes:
            for tenant in batches:
                sizes.xlen(readings_stream(tenant))
            if any(size >= mark for size in await sizes.execute()):
                raise Full
        async with redis.pipeline(transaction=True) as pipe:
            for tenant, messages in batches.items():
                key, ledger = readings_stream(tenant), ledger_key(tenant)
                at = received
                for chunk in _chunks(messages):
                    pipe.execute_command("XADD", key, "*", "n", len(chunk), "t", at, "m", _encode(chunk))
                    at += len(chunk)
                pipe.execute_command("HINCRBY", ledger, "taken", len(messages))
                pipe.execute_command("HINCRBY", ledger, "waiting", len(messages))
            await pipe.execute()


async def check_memory(redis: Redis) -> None:
    """Raise `Full` when Redis has used `MEMORY_MARK` of its memory; the rest is for acknowledgements."""
    with translated():
        memory = await redis.info("memory")
    if 0 < memory["maxmemory"] * MEMORY_MARK < memory["used_memory"]:
        raise Full("Redis is near its memory limit")


def _chunks(messages: Sequence[Message]) -> Iterable[Sequence[Message]]:
    size = sum(len(payload) for _, payload in messages)
    if size <= ENTRY_BYTES and len(messages) <= ENTRY_MESSAGES:
        return (messages,)
    chunks: list[list[Message]] = [[]]
    size = 0
    for message in messages:
        if chunks[-1] and (size + len(message[1]) > ENTRY_BYTES or len(chunks[-1]) == ENTRY_MESSAGES):
            chunks.append([])
            size = 0
        chunks[-1].append(message)
        size += len(message[1])
    return chunks


async def make_groups(redis: Redis, tenants: Iterable[TenantId]) -> None:
    """Make the streams and groups of these tenants, where they are missing."""
    for tenant in tenants:
        with translated():
            try:
                await redis.xgroup_create(readings_stream(tenant), writers_group(tenant), id="0", mkstream=True)
            except ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise


async def read(redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int) -> list[Entry]:
    """New entries of these tenants, at most `count` of each."""
    return await _read_group(redis, tenants, consumer, count, ">")


async def read_own(redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int) -> list[Entry]:
    """Entries that this consumer has read and not finished."""
    return await _read_group(redis, tenants, consumer, count, "0")


async def _read_group(
    redis: Redis, tenants: Sequence[TenantId], consumer: str, count: int, after: str
) -> list[Entry]:
    commands = [
        ("XREADGROUP", "GROUP", writers_group(t), consumer, "COUNT", count, "STREAMS", readings_stream(t), after)
        for t in tenants
    ]
    return await _read(redis, tenants, commands, lambda reply: reply[0][1] if reply else ())


async def take_over(redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int) -> list[Entry]:
    """Entries that a consumer took and has not acknowledged for `STALE`."""
    commands = [
        ("XAUTOCLAIM", readings_stream(t), writers_group(t), consumer, STALE, "0-0", "COUNT", count)
        for t in tenants
    ]
    return await _read(redis, tenants, commands, lambda reply: reply[1])


async def _read(
    redis: Redis, tenants: Sequence[TenantId], commands: list[tuple[Any, ...]], pick: Any
) -> list[Entry]:
    with translated():
        async with redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
    missing = []
    entries = []
    for tenant, reply in zip(tenants, replies, strict=True):
        if isinstance(reply, ResponseError) and str(reply).startswith("NOGROUP"):
            missing.append(tenant)  # an emptied Redis, or a tenant made just now
            continue
        if isinstance(reply, Exception):
            with translated():
                raise reply
        for entry_id, fields in pick(reply):
            if fields:  # XAUTOCLAIM of Redis 6.2 names deleted entries without fields
                facts = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
                entries.append(Entry(tenant, entry_id, int(facts[b"t"]), _decode(facts[b"m"])))
    if missing:
        await make_groups(redis, missing)
    return entries


# An entry is finished once: whoever comes second, because an answer was lost or another consumer took the
# entry over, finds it acknowledged and changes nothing, neither the count of what waits nor the dead letters.
# Beyond its byte cap a tenant's dead letters keep only the heads of payloads, beyond its cap of letters only a
# count: one sender of garbage must not fill the memory that everybody's readings pass through.
FINISH: Final = (
    """
local ledger, finished = KEYS[3], 0
local i = 2
while i <= #ARGV do
    local id, messages, letters = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    i = i + 3
    local open = redis.call('XACK', KEYS[1], ARGV[1], id) == 1
    if open then
        redis.call('XDEL', KEYS[1], id)
        redis.call('HINCRBY', ledger, 'waiting', -messages)
        finished = finished + 1
    end
    for _ = 1, letters do
        local topic, payload, received, reason, detail = unpack(ARGV, i, i + 4)
        i = i + 5
        if open then
            local bytes = tonumber(redis.call('HGET', ledger, 'dead_bytes') or '0')
            if bytes + #payload > {bytes} then
                detail = 'only the head of ' .. #payload .. ' bytes is kept: too many dead letters. ' .. detail
                payload = string.sub(payload, 1, {head})
            end
            if redis.call('XLEN', KEYS[2]) < {letters} then
                redis.call('XADD', KEYS[2], '*', 'stream', KEYS[1], 'topic', topic, 'payload', payload,
                    'received', received, 'reason', reason, 'detail', detail, 'attempts', 1)
                redis.call('HINCRBY', ledger, 'dead_bytes', #payload)
            else
                redis.call('HINCRBY', ledger, 'dead_unkept', 1)
            end
        end
    end
end
return finished
""".replace("{bytes}", str(dead_letters.BYTES))
    .replace("{head}", str(dead_letters.HEAD))
    .replace("{letters}", str(dead_letters.LETTERS))
)


async def finish(redis: Redis, entries: Sequence[Entry], dead: Mapping[EntryKey, Sequence[DeadLetter]]) -> None:
    """Acknowledge and remove entries whose content is committed, and put their dead letters aside.

    Atomic for each tenant, and may be called again when its answer was lost.
    """
    by_tenant: dict[TenantId, list[Entry]] = {}
    for entry in entries:
        by_tenant.setdefault(entry.tenant, []).append(entry)
    with translated():
        for tenant, own in by_tenant.items():
            arguments: list[Any] = [writers_group(tenant)]
            for entry in own:
                letters = dead.get(entry.key, ())
                arguments += [entry.id, len(entry.messages), len(letters)]
                for letter in letters:
                    arguments += _letter(letter)
            keys = [readings_stream(tenant), dead_letter_stream(tenant), ledger_key(tenant)]
            await redis.eval(FINISH, len(keys), *keys, *arguments)


def _letter(letter: DeadLetter) -> tuple[Any, ...]:
    return (letter.topic, letter.payload, letter.received, letter.reason, letter.detail[:500])


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's readings stream: messages taken in, waiting, refused at the intake; age of the oldest in s."""

    taken: int
    waiting: int
    refused: int
    entries: int
    dead: int
    oldest_seconds: float


async def states(redis: Redis, tenants: Sequence[TenantId], *, now: float) -> list[StreamState]:
    """What is in these tenants' streams; `now` in seconds since the epoch."""
    with translated():
        async with redis.pipeline(transaction=True) as pipe:
            for tenant in tenants:
                pipe.hgetall(ledger_key(tenant))
                pipe.xlen(readings_stream(tenant))
                pipe.xlen(dead_letter_stream(tenant))
                pipe.execute_command("XRANGE", readings_stream(tenant), "-", "+", "COUNT", 1)
            replies = await pipe.execute()
    return [_state(*replies[at : at + 4], now=now) for at in range(0, len(replies), 4)]


def _state(ledger: dict[bytes, bytes], entries: int, dead: int, first: list[Any], *, now: float) -> StreamState:
    counts = {name.decode(): int(value) for name, value in ledger.items()}
    oldest = now - int(first[0][0].split(b"-")[0]) / 1000 if first else 0.0
    return StreamState(
        taken=counts.get("taken", 0),
        waiting=counts.get("waiting", 0),
        refused=counts.get("refused", 0),
        entries=entries,
        dead=dead,
        oldest_seconds=max(oldest, 0.0),
    )


async def open_ids(redis: Redis, tenant: TenantId) -> list[str]:
    """Ids of the entries that some consumer has taken and not finished."""
    with translated():
        try:
            rows = await redis.xpending_range(readings_stream(tenant), writers_group(tenant), "-", "+", OPEN)
        except ResponseError as exc:
            if str(exc).startswith("NOGROUP"):
                return []
            raise
    return [row["message_id"].decode() for row in rows]  # type: ignore[union-attr]
