"""Checks that the ledgers account for every payload and every reading."""

from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery.stream_stats import PENDING_LIMIT, last_delivered
from iotistica.storage.delivery.streams import KINDS
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis, guarded, ledger_key


class _Snapshot(NamedTuple):
    """Redis at one moment: how many messages must be closed (processed or dead), and the open entries."""

    closed: int
    open: list[str]
    delivered: dict[str, str]
    """The id of the last entry delivered to a consumer, by the id prefix of its stream."""


CLOSED_PAYLOADS: Final = """
SELECT coalesce((SELECT processed + dead FROM payloads_ledger_totals WHERE tenant_id = %(tenant)s), 0)
     + coalesce((SELECT sum(processed + dead) FROM payloads_ledger p
                 JOIN unnest(%(marks)s::text[], %(ms)s::bigint[], %(parts)s::bigint[]) AS d (mark, ms, part)
                   ON d.mark = substring(p.entry FROM '^[a-z]*')
                 WHERE tenant_id = %(tenant)s AND entry <> ALL(%(open)s::text[])
                   AND (substring(split_part(entry, '-', 1) FROM '[0-9]+')::bigint,
                        split_part(entry, '-', 2)::bigint) <= (d.ms, d.part)), 0)::bigint
"""


async def payload_imbalance(redis: Redis, database: Database, tenant: TenantId) -> int | None:
    """Return taken - processed - waiting - dead payloads; a value other than 0 is a fault, None is unknown.

    It is exact under load: it is computed for the moment at which Redis is read, and entries open at that moment
    are left out of both sides. It must not be called while the ledger is being folded.
    """
    snapshot = await _snapshot(redis, tenant)
    if snapshot is None:
        return None
    ids = {mark: last.split("-") for mark, last in snapshot.delivered.items()}
    async with database.transaction() as tx:
        cursor = await tx.execute(
            CLOSED_PAYLOADS,
            {
                "tenant": tenant,
                "open": snapshot.open,
                "marks": list(ids),
                "ms": [int(parts[0]) for parts in ids.values()],
                "parts": [int(parts[1]) for parts in ids.values()],
            },
        )
        row = await cursor.fetchone()
    return snapshot.closed - int(row[0]) if row else None


async def _snapshot(redis: Redis, tenant: TenantId) -> _Snapshot | None:
    with guarded(redis):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(ledger_key(tenant))
            for kind in KINDS:
                pipe.execute_command("XINFO", "GROUPS", kind.stream(tenant))
                pipe.xpending_range(kind.stream(tenant), kind.group(tenant), "-", "+", PENDING_LIMIT)
            facts, *replies = await pipe.execute(raise_on_error=False)
    counts = {name: int(value) for name, value in facts.items()}
    closed = counts.get(b"taken", 0) - counts.get(b"refused", 0) - counts.get(b"waiting", 0)
    open_: list[str] = []
    delivered: dict[str, str] = {}
    for kind, groups, pending in zip(KINDS, replies[0::2], replies[1::2], strict=True):
        if isinstance(groups, ResponseError) or isinstance(pending, ResponseError) or not groups:
            continue  # this tenant does not have the stream yet
        if len(pending) >= PENDING_LIMIT:
            return None
        open_ += [kind.id_prefix + row["message_id"].decode() for row in pending]
        delivered[kind.id_prefix] = last_delivered(groups[0])
    return _Snapshot(closed, open_, delivered)


READING_IMBALANCE: Final = """
SELECT (SELECT coalesce(sum(found - stored - duplicate - rejected), 0) FROM readings_ledger
        WHERE tenant_id = %(tenant)s)
     + (SELECT coalesce(sum(found - stored - duplicate - rejected), 0) FROM readings_ledger_totals
        WHERE tenant_id = %(tenant)s),
       (SELECT coalesce(sum(rejected), 0) FROM readings_ledger WHERE tenant_id = %(tenant)s)
     + (SELECT coalesce(sum(rejected), 0) FROM readings_ledger_totals WHERE tenant_id = %(tenant)s)
     - (SELECT coalesce(sum(readings), 0) FROM rejections WHERE tenant_id = %(tenant)s)
     - (SELECT coalesce(sum(readings), 0) FROM rejections_totals WHERE tenant_id = %(tenant)s)
"""


async def reading_imbalance(database: Database, tenant: TenantId) -> int:
    """Return the number of readings without an outcome plus rejections without a reason; 0 without a fault."""
    async with database.transaction() as tx:
        cursor = await tx.execute(READING_IMBALANCE, {"tenant": tenant})
        row = await cursor.fetchone()
    return abs(int(row[0])) + abs(int(row[1])) if row else 0
