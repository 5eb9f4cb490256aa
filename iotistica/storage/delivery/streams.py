"""Redis streams between the intake and its consumers; an entry holds a batch of messages of one tenant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from iotistica.domain.delivery.topics import Stream
from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.redis import (
    Redis,
    control_group,
    control_stream,
    guarded,
    ledger_key,
    logs_group,
    logs_stream,
    readings_group,
    readings_stream,
)

Message = tuple[bytes, bytes]
"""Topic and payload, as received."""


class StreamKind(NamedTuple):
    """One of the streams that every tenant has, and the consumer group that reads it."""

    id_prefix: str
    """Distinguishes the ids of its entries in the ledger from those of the other streams."""
    stream: Callable[[TenantId], str]
    group: Callable[[TenantId], str]


READINGS: Final = StreamKind("", readings_stream, readings_group)
CONTROL: Final = StreamKind("c", control_stream, control_group)
"""Messages that must be applied in the order in which they were received."""
LOGS: Final = StreamKind("l", logs_stream, logs_group)
KINDS: Final = (READINGS, CONTROL, LOGS)
KIND_BY_NAME: Final[dict[Stream, StreamKind]] = {"readings": READINGS, "control": CONTROL, "logs": LOGS}
"""By the stream name of a topic's route."""

StreamKey = tuple[TenantId, StreamKind]

ENTRY_BYTES: Final = 512 << 10  # bytes of payloads in one entry, unless a single message is larger
ENTRY_MESSAGES: Final = 1000
MEMORY_LIMIT: Final = 0.8  # share of Redis's memory above which nothing is appended
STALE_MS: Final = 60_000  # ms without an acknowledgement after which another consumer takes an entry over

encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode


class Entry(NamedTuple):
    """One entry as a consumer reads it; `received` is that of its first message, in us since the epoch."""

    tenant: TenantId
    kind: StreamKind
    id: bytes
    received: int
    messages: list[Message]
    attempts: int
    """How often the messages of the entry were dead letters before."""

    @property
    def key(self) -> "EntryKey":
        return self.tenant, self.kind.id_prefix + self.id.decode()


EntryKey = tuple[TenantId, str]
"""Identifies an entry: its tenant, and its id with the prefix of its stream."""


async def append(
    redis: Redis, batches: Mapping[StreamKey, Sequence[Message]], *, received: int, high_water_mark: int
) -> set[StreamKey]:
    """Append messages to their streams and count them as taken, in one transaction.

    Returns the full streams, those with `high_water_mark` entries, to which nothing was appended. Messages in the
    other streams are as durable as Redis is. Raises `Unavailable` when Redis does not answer; the messages may or
    may not be stored then.
    """
    with guarded(redis):
        async with redis.pipeline(transaction=False) as sizes:
            for tenant, kind in batches:
                sizes.xlen(kind.stream(tenant))
            full = {
                key for key, size in zip(batches, await sizes.execute(), strict=True) if size >= high_water_mark
            }
        if len(full) == len(batches):
            return full
        async with redis.pipeline(transaction=True) as pipe:
            for (tenant, kind), messages in batches.items():
                if (tenant, kind) in full:
                    continue
                key, ledger = kind.stream(tenant), ledger_key(tenant)
                at = received
                for chunk in _chunks(messages):
                    pipe.execute_command("XADD", key, "*", "n", len(chunk), "t", at, "m", encode(chunk))
                    at += len(chunk)
                pipe.execute_command("HINCRBY", ledger, "taken", len(messages))
                pipe.execute_command("HINCRBY", ledger, "waiting", len(messages))
            await pipe.execute()
    return full


async def check_memory(redis: Redis) -> None:
    """Raise `Full` when Redis uses more than `MEMORY_LIMIT` of its memory; the rest is for acknowledgements."""
    if await memory_share(redis) > MEMORY_LIMIT:
        raise Full("Redis is near its memory limit.")


async def memory_share(redis: Redis) -> float:
    """Return the share of its memory limit that Redis uses, 0 to 1; 0 if it has no limit."""
    with guarded(redis):
        memory = await redis.info("memory")
    return memory["used_memory"] / memory["maxmemory"] if memory["maxmemory"] else 0.0


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


async def create_groups(redis: Redis, tenants: Iterable[TenantId], kind: StreamKind) -> None:
    """Create the streams and groups of these tenants where they are missing."""
    for tenant in tenants:
        with guarded(redis):
            try:
                await redis.xgroup_create(kind.stream(tenant), kind.group(tenant), id="0", mkstream=True)
            except ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise


async def read(
    redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int, kind: StreamKind = READINGS
) -> list[Entry]:
    """Return new entries of these tenants, at most `count` of each."""
    return await _read_group(redis, tenants, kind, consumer, count, ">")


async def read_pending(
    redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int, kind: StreamKind = READINGS
) -> list[Entry]:
    """Return entries that this consumer has read but not acknowledged."""
    return await _read_group(redis, tenants, kind, consumer, count, "0")


async def _read_group(
    redis: Redis, tenants: Sequence[TenantId], kind: StreamKind, consumer: str, count: int, after: str
) -> list[Entry]:
    commands = [
        ("XREADGROUP", "GROUP", kind.group(t), consumer, "COUNT", count, "STREAMS", kind.stream(t), after)
        for t in tenants
    ]
    return await _read(redis, tenants, kind, commands, lambda reply: reply[0][1] if reply else ())


async def claim_stale(
    redis: Redis,
    tenants: Sequence[TenantId],
    consumer: str,
    *,
    count: int,
    kind: StreamKind = READINGS,
    idle: int | None = None,
) -> list[Entry]:
    """Take over entries that another consumer has not acknowledged for `idle` ms (default `STALE_MS`)."""
    after = STALE_MS if idle is None else idle
    commands = [
        ("XAUTOCLAIM", kind.stream(t), kind.group(t), consumer, after, "0-0", "COUNT", count) for t in tenants
    ]
    return await _read(redis, tenants, kind, commands, lambda reply: reply[1])


async def _read(
    redis: Redis, tenants: Sequence[TenantId], kind: StreamKind, commands: list[tuple[Any, ...]], pick: Any
) -> list[Entry]:
    with guarded(redis):
        async with redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
    missing = []
    entries = []
    for tenant, reply in zip(tenants, replies, strict=True):
        if isinstance(reply, ResponseError) and str(reply).startswith("NOGROUP"):
            missing.append(tenant)  # Redis was emptied, or the tenant is new
            continue
        if isinstance(reply, Exception):
            with guarded(redis):
                raise reply
        for entry_id, fields in pick(reply):
            if fields:  # XAUTOCLAIM of Redis 6.2 returns deleted entries without fields
                facts = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
                attempts = int(facts.get(b"a", 0))
                received, messages = int(facts[b"t"]), _decode(facts[b"m"])
                entries.append(Entry(tenant, kind, entry_id, received, messages, attempts))
    if missing:
        await create_groups(redis, missing, kind)
    return entries


GONE_MS: Final = 3_600_000  # ms without a command from a consumer

# One script: a consumer that wakes up between two commands would permanently lose the entries it has just read.
DELETE_GONE_CONSUMER: Final = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
end
return 0
"""


async def delete_gone_consumers(redis: Redis, tenant: TenantId) -> None:
    """Remove consumers that are gone and have no pending entries from the readings group."""
    stream, group = READINGS.stream(tenant), READINGS.group(tenant)
    with guarded(redis):
        try:
            consumers: list[dict[str, Any]] = await redis.xinfo_consumers(stream, group)
        except ResponseError:
            return  # the stream does not exist yet
        for consumer in consumers:
            if not consumer["pending"] and consumer["idle"] > GONE_MS:
                await redis.eval(DELETE_GONE_CONSUMER, 1, stream, group, consumer["name"])
