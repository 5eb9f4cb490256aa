"""Streams between the intake and its consumers: a batch of messages is one entry."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.errors import Full
from iotistica.storage.redis import (
    PLATFORM_DLQ,
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
UNKNOWN_KEPT: Final = 10_000  # messages for no tenant we know; the oldest go first
OPEN: Final = 100_000  # entries in work at most: 64 a consumer
STALE: Final = 60_000  # ms without an acknowledgement after which another consumer takes an entry over

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode


class Entry(NamedTuple):
    """One entry as a consumer gets it; `received` of its first message in us since the epoch."""

    tenant: TenantId
    id: bytes
    received: int
    messages: list[Message]


class DeadLetter(NamedTuple):
    """A message that cannot be processed, with the reason and its bytes."""

    topic: bytes
    payload: bytes
    received: int
    reason: str
    detail: str


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


async def read(
    redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int, own: bool = False
) -> list[Entry]:
    """New entries of these tenants, at most `count` of each; `own` reads what this consumer left open."""
    return await _read(
        redis,
        tenants,
        [
            (
                "XREADGROUP",
                "GROUP",
                writers_group(tenant),
                consumer,
                "COUNT",
                count,
                "STREAMS",
                key,
                "0" if own else ">",
            )
            for tenant in tenants
            for key in [readings_stream(tenant)]
        ],
        lambda reply: reply[0][1] if reply else (),
    )


async def take_over(redis: Redis, tenants: Sequence[TenantId], consumer: str, *, count: int) -> list[Entry]:
    """Entries that a consumer took and has not acknowledged for `STALE`."""
    return await _read(
        redis,
        tenants,
        [
            (
                "XAUTOCLAIM",
                readings_stream(tenant),
                writers_group(tenant),
                consumer,
                STALE,
                "0-0",
                "COUNT",
                count,
            )
            for tenant in tenants
        ],
        lambda reply: reply[1],
    )


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


async def finish(redis: Redis, entries: Sequence[Entry], dead: Mapping[TenantId, Sequence[DeadLetter]]) -> None:
    """Acknowledge and remove entries whose content is committed, and put their dead letters aside.

    One transaction a tenant, so that a message is never both open and a dead letter. When it fails the
    caller must not call again with the same entries, since its answer alone may have been lost: what is
    still open comes back by `read(own=True)`.
    """
    by_tenant: dict[TenantId, list[Entry]] = {}
    for entry in entries:
        by_tenant.setdefault(entry.tenant, []).append(entry)
    with translated():
        for tenant, own in by_tenant.items():
            key, group = readings_stream(tenant), writers_group(tenant)
            ids = [entry.id for entry in own]
            async with redis.pipeline(transaction=True) as pipe:
                for letter in dead.get(tenant, ()):
                    pipe.execute_command("XADD", dead_letter_stream(tenant), "*", *_letter(key, letter))
                pipe.execute_command("XACK", key, group, *ids)
                pipe.execute_command("XDEL", key, *ids)
                pipe.execute_command("HINCRBY", ledger_key(tenant), "waiting", -sum(len(e.messages) for e in own))
                await pipe.execute()


def _letter(origin: str, letter: DeadLetter) -> tuple[Any, ...]:
    return (
        *("stream", origin, "topic", letter.topic, "payload", letter.payload, "received", letter.received),
        *("reason", letter.reason, "detail", letter.detail[:500], "attempts", 1),
    )


async def dead_letter_unknown(redis: Redis, letters: Sequence[DeadLetter]) -> None:
    """Keep messages of no tenant we know in one bounded stream of the platform."""
    with translated():
        async with redis.pipeline(transaction=False) as pipe:
            for letter in letters:
                pipe.execute_command(
                    "XADD", PLATFORM_DLQ, "MAXLEN", "~", UNKNOWN_KEPT, "*", *_letter("intake", letter)
                )
            await pipe.execute()


async def dead_letter(redis: Redis, tenant: TenantId, letters: Sequence[DeadLetter]) -> None:
    """Put messages aside that never reach a stream, counted as taken in and as dead."""
    with translated():
        async with redis.pipeline(transaction=True) as pipe:
            for letter in letters:
                pipe.execute_command("XADD", dead_letter_stream(tenant), "*", *_letter("intake", letter))
            pipe.execute_command("HINCRBY", ledger_key(tenant), "taken", len(letters))
            pipe.execute_command("HINCRBY", ledger_key(tenant), "refused", len(letters))
            await pipe.execute()


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's readings stream: messages taken in, waiting, refused at the intake; age of the oldest in s."""

    taken: int
    waiting: int
    refused: int
    entries: int
    dead: int
    oldest_seconds: float


async def state(redis: Redis, tenant: TenantId, *, now: float) -> StreamState:
    """What is in a tenant's stream; `now` in seconds since the epoch."""
    key = readings_stream(tenant)
    with translated():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(ledger_key(tenant))
            pipe.xlen(key)
            pipe.xlen(dead_letter_stream(tenant))
            pipe.execute_command("XRANGE", key, "-", "+", "COUNT", 1)
            ledger, entries, dead, first = await pipe.execute()
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
