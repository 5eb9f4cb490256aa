"""Statistics of the streams: how many messages wait, since when, and which entries are pending."""

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery.streams import KINDS, READINGS, StreamKind
from iotistica.storage.redis import Redis, dead_letter_stream, guarded, ledger_key, parked_stream

LAG_LIMIT: Final = 60.0  # seconds that the oldest message can wait before the status is `degraded`
PENDING_LIMIT: Final = 100_000  # pending entries read; a consumer has at most 64
JUDGED_SECONDS: Final = 30.0  # seconds that a tenant's oldest message can wait before nobody is judged silent
SPOOLED_FIELD: Final = "spooled:"
"""Prefix of the fields in a tenant's ledger with the numbers of its messages in a spool; the spool's id follows."""


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of messages of a tenant: taken, waiting, refused at the intake, and so on.

    `oldest_seconds` is the age of the oldest message in a stream or parked; messages in spools do not count.
    """

    taken: int
    waiting: int
    refused: int
    spooled: int
    parked: int
    entries: int
    dead: int
    dead_bytes: int
    dead_unkept: int
    oldest_seconds: float


async def stream_stats(redis: Redis, tenants: Sequence[TenantId], *, now: float) -> list[StreamStats]:
    """Return the statistics of these tenants' streams; `now` in seconds since the epoch."""
    with guarded(redis):
        async with redis.pipeline(transaction=True) as pipe:
            for tenant in tenants:
                pipe.hgetall(ledger_key(tenant))
                pipe.xlen(dead_letter_stream(tenant))
                pipe.xlen(parked_stream(tenant))
                pipe.execute_command("XRANGE", parked_stream(tenant), "-", "+", "COUNT", 1)
                for kind in KINDS:
                    pipe.xlen(kind.stream(tenant))
                    pipe.execute_command("XRANGE", kind.stream(tenant), "-", "+", "COUNT", 1)
            replies = await pipe.execute()
    step = 4 + 2 * len(KINDS)
    return [_stats(replies[at : at + step], now) for at in range(0, len(replies), step)]


def _stats(replies: list[Any], now: float) -> StreamStats:
    facts, dead, parked, first_parked, *streams = replies
    counts = {name.decode(): int(value) for name, value in facts.items()}
    spooled = sum(value for name, value in counts.items() if name.startswith(SPOOLED_FIELD))
    first = [_received(entries[0][1]) for entries in (first_parked, *streams[1::2]) if entries]
    return StreamStats(
        taken=counts.get("taken", 0) + spooled,
        waiting=counts.get("waiting", 0) + spooled,
        refused=counts.get("refused", 0),
        spooled=spooled,
        parked=parked,
        entries=sum(streams[0::2]),
        dead=dead,
        dead_bytes=counts.get("dead_bytes", 0),
        dead_unkept=counts.get("dead_unkept", 0),
        oldest_seconds=max((now - at for at in first), default=0.0),
    )


def _received(fields: Any) -> float:
    """Return when a stream entry or a parked message was received, in seconds since the epoch."""
    facts = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    return int(facts.get(b"t") or facts[b"received"]) / 1e6


async def pending_entry_ids(redis: Redis, tenant: TenantId, kind: StreamKind = READINGS) -> list[str]:
    """Return the ids of pending entries (read but not acknowledged), as used in the ledger."""
    with guarded(redis):
        try:
            rows = await redis.xpending_range(kind.stream(tenant), kind.group(tenant), "-", "+", PENDING_LIMIT)
        except ResponseError as exc:
            if str(exc).startswith("NOGROUP"):
                return []
            raise
    return [kind.id_prefix + row["message_id"].decode() for row in rows]  # type: ignore[union-attr]


async def lag(redis: Redis, tenants: Sequence[TenantId], kind: StreamKind = READINGS) -> tuple[float, int]:
    """Return when the oldest entry not read yet was appended to these streams, and the length of the longest one.

    The time is in seconds since the epoch, infinity when nothing waits. Redis reports the lag of a group only from
    version 7 on.
    """
    with guarded(redis):
        async with redis.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.execute_command("XINFO", "GROUPS", kind.stream(tenant))
                pipe.xlen(kind.stream(tenant))
            replies = await pipe.execute(raise_on_error=False)
        delivered = []
        for tenant, groups in zip(tenants, replies[0::2], strict=True):
            if not isinstance(groups, Exception) and groups:
                delivered.append((tenant, last_delivered(groups[0])))
        async with redis.pipeline(transaction=False) as pipe:
            for tenant, last in delivered:
                pipe.execute_command("XRANGE", kind.stream(tenant), f"({last}", "+", "COUNT", 1)
            waiting = await pipe.execute()
    oldest = min((int(entries[0][0].split(b"-")[0]) / 1000 for entries in waiting if entries), default=float("inf"))
    deepest = max((size for size in replies[1::2] if isinstance(size, int)), default=0)
    return oldest, deepest


def last_delivered(group: Any) -> str:
    """Return the id of the last entry delivered to a group, from one row of XINFO GROUPS."""
    facts = group if isinstance(group, dict) else dict(zip(group[::2], group[1::2], strict=True))
    last = facts.get(b"last-delivered-id") or facts.get("last-delivered-id")
    return last.decode() if isinstance(last, bytes) else str(last)


async def lagging(redis: Redis, tenants: Sequence[TenantId]) -> list[TenantId]:
    """Return the tenants whose messages have waited to be stored for `JUDGED_SECONDS`; raises `Unavailable`.

    What such a tenant's agents sent may not be stored yet, so that none of them can be called silent.
    """
    before = time.time() - JUDGED_SECONDS
    waiting = [kind for kind in KINDS if (await lag(redis, tenants, kind))[0] < before]
    return [
        tenant
        for tenant in (tenants if waiting else ())
        if any([(await lag(redis, [tenant], kind))[0] < before for kind in waiting])
    ]
