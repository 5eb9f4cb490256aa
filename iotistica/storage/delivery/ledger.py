"""The ledgers of payloads and readings: how many were accepted, and their outcomes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

ENTRIES: Final = """
INSERT INTO payloads_ledger (tenant_id, entry, first, processed, dead, dead_at, parked_at)
SELECT tenant_id, entry, first, messages - cardinality(dead::int[]) - cardinality(parked::int[]),
       cardinality(dead::int[]), dead::int[], parked::int[]
FROM unnest(%(tenants)s::text[], %(entries)s::text[], %(firsts)s::int[], %(messages)s::int[], %(dead)s::text[],
            %(parked)s::text[]) AS n (tenant_id, entry, first, messages, dead, parked)
"""
COMMITTED: Final = """
SELECT tenant_id, entry, processed + dead + cardinality(parked_at) AS messages, dead_at, parked_at
FROM payloads_ledger
JOIN unnest(%(tenants)s::text[], %(entries)s::text[]) AS n (tenant_id, entry) USING (tenant_id, entry)
"""


class EntryOutcome(msgspec.Struct, frozen=True):
    """The outcome of a number of `messages` of an entry, starting at message number `first`.

    `dead` and `parked` are the numbers of the messages that became dead letters or were parked.
    """

    tenant: TenantId
    entry: str
    first: int
    messages: int
    dead: Sequence[int] = ()
    parked: Sequence[int] = ()


class CommittedEntry(NamedTuple):
    """How many messages of an entry, from its first, are committed, and which are dead letters or parked."""

    messages: int
    dead: frozenset[int]
    parked: frozenset[int]


async def record_entries(tx: Tx, counts: Sequence[EntryOutcome]) -> None:
    """Record the outcomes of the payloads of stream entries.

    Raises `Conflict`, so that nothing is stored, if messages of an entry from the same `first` were committed
    before: each message is stored once, however often its entry is delivered.
    """
    rows = sorted(counts, key=lambda c: (c.tenant, c.entry))
    await tx.execute(
        ENTRIES,
        {
            "tenants": [c.tenant for c in rows],
            "entries": [c.entry for c in rows],
            "firsts": [c.first for c in rows],
            "messages": [c.messages for c in rows],
            "dead": [_array(c.dead) for c in rows],
            "parked": [_array(c.parked) for c in rows],
        },
    )


def _array(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"  # as text: PostgreSQL needs nested arrays of equal length


async def committed_entries(
    tx: Tx, entries: Sequence[tuple[TenantId, str]]
) -> dict[tuple[TenantId, str], CommittedEntry]:
    """Return what is committed of each of these entries; entries without anything are left out."""
    cursor = await tx.execute(
        COMMITTED, {"tenants": [tenant for tenant, _ in entries], "entries": [entry for _, entry in entries]}
    )
    committed: dict[tuple[TenantId, str], CommittedEntry] = {}
    for tenant, entry, messages, dead, parked in await cursor.fetchall():
        before = committed.get((tenant, entry), CommittedEntry(0, frozenset(), frozenset()))
        committed[tenant, entry] = CommittedEntry(
            before.messages + messages, before.dead | set(dead), before.parked | set(parked)
        )
    return committed


REJECT: Final = """
INSERT INTO rejections (tenant_id, agent_uuid, reason, readings)
SELECT * FROM unnest(%(tenants)s::text[], %(agents)s::uuid[], %(reasons)s::text[], %(readings)s::int[])
"""


async def record_rejections(tx: Tx, counts: Mapping[tuple[TenantId, UUID, str], int]) -> None:
    """Record the numbers of rejected readings by tenant, agent and reason."""
    await tx.execute(
        REJECT,
        {
            "tenants": [key[0] for key in counts],
            "agents": [key[1] for key in counts],
            "reasons": [key[2] for key in counts],
            "readings": list(counts.values()),
        },
    )


FOLD_READINGS: Final = """
WITH old AS (DELETE FROM readings_ledger WHERE at < %(before)s RETURNING *)
INSERT INTO readings_ledger_totals AS t
SELECT tenant_id, agent_uuid, sum(found), sum(stored), sum(duplicate), sum(rejected), sum(conflict),
       min(first_time), max(last_time), max(at)
FROM old GROUP BY tenant_id, agent_uuid ORDER BY tenant_id, agent_uuid
ON CONFLICT (tenant_id, agent_uuid) DO UPDATE SET
    found = t.found + excluded.found, stored = t.stored + excluded.stored,
    duplicate = t.duplicate + excluded.duplicate, rejected = t.rejected + excluded.rejected,
    conflict = t.conflict + excluded.conflict,
    first_time = least(t.first_time, excluded.first_time),
    last_time = greatest(t.last_time, excluded.last_time), last_at = greatest(t.last_at, excluded.last_at)
"""
FOLD_REJECTIONS: Final = """
WITH old AS (DELETE FROM rejections WHERE at < %(before)s RETURNING *), told AS (
    INSERT INTO agent_timeline AS t (tenant_id, agent_uuid, at, kind, details, times, once)
    SELECT a.tenant_id, a.agent_uuid, min(at), 'readings.rejected', jsonb_build_object('reason', reason),
           least(sum(readings), 1 << 30), reason || to_char(date_trunc('hour', at, 'UTC'), ' YYYY-MM-DD"T"HH24')
    FROM old JOIN agents a USING (tenant_id, agent_uuid)
    GROUP BY a.tenant_id, a.agent_uuid, reason, date_trunc('hour', at, 'UTC') ORDER BY a.agent_uuid
    ON CONFLICT (agent_uuid, kind, once) WHERE once IS NOT NULL
    DO UPDATE SET times = least(t.times::bigint + excluded.times, 1 << 30), last_at = excluded.at)
INSERT INTO rejections_totals AS t
SELECT tenant_id, agent_uuid, reason, sum(readings), max(at)
FROM old GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, agent_uuid, reason) DO UPDATE SET
    readings = t.readings + excluded.readings, last_at = greatest(t.last_at, excluded.last_at)
"""
# An entry still pending in its stream can be delivered again, so its row must stay until it is acknowledged.
FOLD_PAYLOADS: Final = """
WITH old AS (
    DELETE FROM payloads_ledger WHERE at < %(before)s AND tenant_id = %(tenant)s
      AND entry <> ALL(%(open)s::text[]) RETURNING *)
INSERT INTO payloads_ledger_totals AS t
SELECT tenant_id, sum(processed), sum(dead) FROM old GROUP BY 1
ON CONFLICT (tenant_id) DO UPDATE SET processed = t.processed + excluded.processed, dead = t.dead + excluded.dead
"""


class StoredRange(NamedTuple):
    """Readings of one agent that one transaction stored, and the first and last of their times."""

    id: int
    xid: int
    tenant: TenantId
    agent: UUID
    first_time: datetime
    last_time: datetime


# Transactions can commit in another order than they began. Rows of those that are still open at the time of one
# call are found by the next, since `xmin` is the oldest of them; the caller drops the rows that it knows already.
STORED_SINCE: Final = """
SELECT id, xid::text, tenant_id, agent_uuid, first_time, last_time FROM readings_ledger
WHERE xid >= %(xmin)s::text::xid8 AND stored > 0 AND id <> ALL(%(known)s) ORDER BY id
"""
XMIN: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"


async def xmin(tx: Tx) -> int:
    """Return the oldest transaction that is still open: all before it are committed or undone."""
    row = await (await tx.execute(XMIN)).fetchone()
    assert row is not None  # noqa: S101 the function always returns a value
    return int(row[0])


async def stored_since(tx: Tx, xmin: int, known: Collection[int]) -> list[StoredRange]:
    """Return what was committed of transactions from `xmin` on, except the `known` rows of the ledger."""
    cursor = await tx.execute(STORED_SINCE, {"xmin": str(xmin), "known": list(known)})
    return [StoredRange(id_, int(xid), *facts) for id_, xid, *facts in await cursor.fetchall()]


CLOCK_OFFSETS: Final = """
SELECT tenant_id, agent_uuid, max(last_time - at) FROM readings_ledger WHERE last_time IS NOT NULL
GROUP BY tenant_id, agent_uuid
"""


async def clock_offsets(tx: Tx) -> list[tuple[TenantId, UUID, timedelta]]:
    """Return how far the newest measured time of each agent is ahead of its receipt, in about the last minute."""
    cursor = await tx.execute(CLOCK_OFFSETS)
    return [(TenantId(tenant), agent, skew) for tenant, agent, skew in await cursor.fetchall()]


STORED_LATELY: Final = """
SELECT coalesce(sum(stored), 0)::bigint FROM readings_ledger
WHERE tenant_id = %(tenant)s AND at > now() - make_interval(secs => %(seconds)s)
"""


async def stored_lately(tx: Tx, tenant: TenantId, *, seconds: float) -> int:
    """Return how many readings of a tenant were stored in the last `seconds`; less than a minute is known."""
    row = await (await tx.execute(STORED_LATELY, {"tenant": tenant, "seconds": seconds})).fetchone()
    assert row is not None  # noqa: S101 an aggregate always has a row
    return int(row[0])


async def fold_readings(tx: Tx, *, before: datetime) -> None:
    """Fold the rows of the readings ledger and the rejections from before `before` into their totals."""
    await tx.execute(FOLD_READINGS, {"before": before})
    await tx.execute(FOLD_REJECTIONS, {"before": before})


async def fold_payloads(tx: Tx, tenant: TenantId, *, before: datetime, still_open: Sequence[str]) -> None:
    """Fold a tenant's payloads ledger from before `before` into its totals, except the `still_open` entries."""
    await tx.execute(FOLD_PAYLOADS, {"tenant": tenant, "before": before, "open": list(still_open)})


class ReadingsBalance(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of readings of a tenant or an agent: found = stored + duplicate + rejected."""

    found: int
    stored: int
    duplicate: int
    rejected: int
    conflict: int
    first_time: datetime | None
    last_time: datetime | None


class RejectionCount(msgspec.Struct, frozen=True):
    reason: str
    readings: int


class PayloadTotals(msgspec.Struct, frozen=True):
    processed: int
    dead: int


READINGS: Final = """
SELECT coalesce(sum(found), 0)::bigint AS found, coalesce(sum(stored), 0)::bigint AS stored,
       coalesce(sum(duplicate), 0)::bigint AS duplicate, coalesce(sum(rejected), 0)::bigint AS rejected,
       coalesce(sum(conflict), 0)::bigint AS conflict, min(first_time) AS first_time, max(last_time) AS last_time
FROM (
    SELECT found, stored, duplicate, rejected, conflict, first_time, last_time FROM readings_ledger
    WHERE tenant_id = %(tenant)s AND (%(agent)s::uuid IS NULL OR agent_uuid = %(agent)s)
    UNION ALL
    SELECT found, stored, duplicate, rejected, conflict, first_time, last_time FROM readings_ledger_totals
    WHERE tenant_id = %(tenant)s AND (%(agent)s::uuid IS NULL OR agent_uuid = %(agent)s)
) rows
"""
REJECTED: Final = """
SELECT reason, sum(readings)::bigint AS readings FROM (
    SELECT reason, readings FROM rejections
    WHERE tenant_id = %(tenant)s AND (%(agent)s::uuid IS NULL OR agent_uuid = %(agent)s)
    UNION ALL
    SELECT reason, readings FROM rejections_totals
    WHERE tenant_id = %(tenant)s AND (%(agent)s::uuid IS NULL OR agent_uuid = %(agent)s)
) rows GROUP BY reason ORDER BY reason
"""
PAYLOADS: Final = """
SELECT coalesce(sum(processed), 0)::bigint AS processed, coalesce(sum(dead), 0)::bigint AS dead FROM (
    SELECT processed, dead FROM payloads_ledger WHERE tenant_id = %(tenant)s
    UNION ALL
    SELECT processed, dead FROM payloads_ledger_totals WHERE tenant_id = %(tenant)s
) rows
"""


async def readings_balance(tx: Tx, tenant: TenantId, agent: UUID | None) -> ReadingsBalance:
    """Return the readings balance of a tenant, or of one of its agents."""
    row = await fetch_row(tx, ReadingsBalance, READINGS, {"tenant": tenant, "agent": agent})
    assert row is not None  # noqa: S101 an aggregate always returns a row
    return row


async def rejections_by_reason(tx: Tx, tenant: TenantId, agent: UUID | None) -> dict[str, int]:
    """Return the numbers of rejected readings of a tenant, or of one of its agents, by reason."""
    rows = await fetch_rows(tx, RejectionCount, REJECTED, {"tenant": tenant, "agent": agent})
    return {row.reason: row.readings for row in rows}


class RecentRejection(msgspec.Struct, frozen=True):
    reason: str
    readings: int
    at: datetime


RECENT_REJECTIONS: Final = """
SELECT reason, sum(readings)::bigint AS readings, max(at) AS at FROM rejections
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s GROUP BY reason
"""


async def recent_rejections(tx: Tx, tenant: TenantId, agent: UUID) -> list[RecentRejection]:
    """Return the rejections of about the last minute, which are not on the timeline yet."""
    return await fetch_rows(tx, RecentRejection, RECENT_REJECTIONS, {"tenant": tenant, "agent": agent})


async def payload_totals(tx: Tx, tenant: TenantId) -> PayloadTotals:
    """Return how many payloads of a tenant were processed and how many became dead letters."""
    return await fetch_row(tx, PayloadTotals, PAYLOADS, {"tenant": tenant}) or PayloadTotals(0, 0)
