"""Erasures: readings that an operator has requested to delete, day by day, with their rollups."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import LONG_AGO, floor
from iotistica.errors import Invalid
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows
from iotistica.storage.telemetry import rollups

DAY: Final = timedelta(days=1)


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """A request to delete readings of an agent, or of one of its devices or metrics, that are older than `before`.

    `readings` counts the readings deleted so far; `reached` is the day that the erasure has reached.
    """

    erasure_id: UUID
    tenant_id: TenantId
    agent_uuid: UUID
    device_name: str | None
    metric_name: str | None
    before: datetime
    asked_at: datetime
    reached: datetime
    readings: int
    done_at: datetime | None


_COLUMNS: Final = (
    "erasure_id, tenant_id, agent_uuid, device_name, metric_name, before, asked_at, reached, readings, done_at"
)

REQUEST: Final = f"""
INSERT INTO erasures (tenant_id, agent_uuid, device_name, metric_name, before)
VALUES (%(tenant)s, %(agent)s, %(device)s, %(metric)s, %(before)s) RETURNING {_COLUMNS}
"""


async def request_erasure(
    tx: Tx, tenant: TenantId, agent: UUID, *, device: str | None, metric: str | None, before: datetime, by: Actor
) -> Erasure:
    """Store an erasure of readings of one of the tenant's agents; raises `Invalid` if no series matches."""
    parameters = {"tenant": tenant, "agent": agent, "device": device, "metric": metric, "before": before}
    if (device or metric) and await (await tx.execute(SERIES_NAMES, parameters)).fetchone() is None:
        raise Invalid(
            "must match a series of the agent: use `device_name` and `metric_name` as in GET /metrics/catalog",
            "metric" if metric else "device",
        )
    row = await fetch_row(tx, Erasure, REQUEST, parameters)
    assert row is not None  # noqa: S101 it was just inserted
    what = {"device": device, "metric": metric, "before": before.isoformat()}
    await audit.record(tx, tenant, by, "readings.erased", ("agent", agent), after=what)
    return row


PAGE: Final = f"""
SELECT {_COLUMNS} FROM erasures WHERE tenant_id = %(tenant)s ORDER BY asked_at DESC, erasure_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, limit: int) -> list[Erasure]:
    """Return at most `limit` of a tenant's erasures, the newest first."""
    return await fetch_rows(tx, Erasure, PAGE, {"tenant": tenant, "limit": limit})


NEXT_OPEN: Final = f"""
SELECT {_COLUMNS} FROM erasures WHERE done_at IS NULL AND erasure_id <> ALL(%(exclude)s::uuid[])
ORDER BY asked_at, erasure_id LIMIT 1
"""


async def next_open(tx: Tx, *, exclude: Sequence[UUID] = ()) -> Erasure | None:
    """Return the oldest unfinished erasure of all tenants except those in `exclude`, or None."""
    return await fetch_row(tx, Erasure, NEXT_OPEN, {"exclude": list(exclude)})


SERIES_NAMES: Final = """
SELECT metric_name FROM series WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
  AND (%(device)s::text IS NULL OR device_name = %(device)s)
  AND (%(metric)s::text IS NULL OR metric_name = %(metric)s)
"""
FIRST_TIME: Final = """
SELECT min(time) FROM readings r JOIN agents a USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND r.agent_uuid = %(agent)s AND r.metric_name = ANY(%(names)s)
  AND r.time < %(before)s
"""
ERASE: Final = """
DELETE FROM readings r USING agents a WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = r.agent_uuid
  AND r.agent_uuid = %(agent)s AND r.metric_name = ANY(%(names)s) AND r.time >= %(start)s AND r.time < %(end)s
"""
SAVE_PROGRESS: Final = """
UPDATE erasures SET readings = readings + %(readings)s, reached = %(reached)s,
    done_at = CASE WHEN %(done)s THEN now() END
WHERE tenant_id = %(tenant)s AND erasure_id = %(erasure)s
"""
LONG_STATEMENTS: Final = f"""
SET LOCAL statement_timeout = '{rollups.STEP_SECONDS:.0f}s';
SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0
"""
ROLLUPS: Final = "SELECT erase_rollups(%(agent)s, %(names)s, %(until)s)"
# The hours of the last day are recomputed, because some of its readings can be left.
MARK_HOURS: Final = """
INSERT INTO rollup_marks SELECT %(agent)s, h
FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz, interval '1 hour') h
"""


async def erase_next_day(tx: Tx, one: Erasure) -> bool:
    """Delete the next day of an erasure, or its rollups when no day is left; return whether it is finished."""
    await tx.execute(LONG_STATEMENTS)
    agent = {"tenant": one.tenant_id, "agent": one.agent_uuid}
    rows = await (
        await tx.execute(SERIES_NAMES, agent | {"device": one.device_name, "metric": one.metric_name})
    ).fetchall()
    names = [name for (name,) in rows]
    parameters = agent | {"names": names}
    start: datetime | None = one.reached
    last = one.reached >= one.before
    if one.reached == LONG_AGO or last:
        # At the end, delete from the beginning once more, all at once: late readings can have arrived meanwhile.
        row = await (await tx.execute(FIRST_TIME, parameters | {"before": one.before}, prepare=False)).fetchone()
        start = row[0] if row else None
    erased, reached = 0, one.before
    if start is not None:
        day = floor(start, DAY)
        reached = one.before if last else min(day + DAY, one.before)
        erased = (await tx.execute(ERASE, parameters | {"start": day, "end": reached}, prepare=False)).rowcount
    done = last or start is None
    if done:
        await _erase_rollups(tx, one, names)
    counted = {"tenant": one.tenant_id, "erasure": one.erasure_id, "readings": erased, "reached": reached}
    await tx.execute(SAVE_PROGRESS, counted | {"done": done})
    return done


async def _erase_rollups(tx: Tx, erasure: Erasure, names: Sequence[str]) -> None:
    """Delete the rollups of an erasure, and have those of its last day recomputed.

    Holds the lock of the rollup process, which would otherwise write back what it has already read.
    """
    at = await rollups.lock_progress(tx)
    last, gone = floor(erasure.before, DAY), erasure.before < at.raw_since
    # TimescaleDB recomputes the last day itself while that day has readings, so deleting all of it would be undone.
    until = erasure.before if at.engine == "plain" or gone else last
    await tx.execute(ROLLUPS, {"agent": erasure.agent_uuid, "names": list(names), "until": until})
    if at.engine == "plain" and gone:
        await rollups.recompute_edges(tx, at, erasure.agent_uuid, erasure.before)
    elif at.engine == "plain":
        await tx.execute(MARK_HOURS, {"agent": erasure.agent_uuid, "since": last, "until": erasure.before})


SERIES_BY_AGENT: Final = """
SELECT a.agent_uuid, array_agg(s.metric_name) FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s GROUP BY 1
"""
ERASE_DAY: Final = """
DELETE FROM readings r WHERE r.time >= %(start)s AND r.time < %(end)s
  AND r.agent_uuid = ANY(ARRAY(SELECT agent_uuid FROM agents a WHERE a.tenant_id = %(tenant)s))
"""
SET_ERASED_UNTIL: Final = "UPDATE tenants SET erased_until = %(until)s WHERE tenant_id = %(tenant)s"


async def erase_day(tx: Tx, tenant: TenantId, day: datetime) -> None:
    """Delete a tenant's readings of one day."""
    await tx.execute(LONG_STATEMENTS)
    parameters = {"tenant": tenant, "start": day, "end": day + DAY}
    await tx.execute(ERASE_DAY, parameters, prepare=False)


async def erase_old_rollups(tx: Tx, tenant: TenantId, until: datetime) -> None:
    """Delete a tenant's rollups older than `until`, whose readings are gone, and record that this is done."""
    await rollups.lock_progress(tx)
    for agent, names in await (await tx.execute(SERIES_BY_AGENT, {"tenant": tenant})).fetchall():
        await tx.execute(ROLLUPS, {"agent": agent, "names": names, "until": until})
    await tx.execute(SET_ERASED_UNTIL, {"tenant": tenant, "until": until})
