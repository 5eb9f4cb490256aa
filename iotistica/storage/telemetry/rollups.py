"""Rollups by minute, hour and day: computed up to a watermark, and recomputed for hours with late readings."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.postgres import Database, Tx, fetch_row

LOCK: Final = "SET LOCAL lock_timeout = '1s'"  # longer than a usual transaction, or it would never succeed
# Acquired before the advisory lock, so that waiting for this row never blocks the storing of readings.
LOCK_PROGRESS_ROW: Final = "SELECT FROM rollup_progress FOR UPDATE"
CLOSE: Final = """
UPDATE rollup_progress SET closed_until = %(until)s
FROM (SELECT pg_advisory_xact_lock(67351)) exclusive WHERE engine = 'plain' AND closed_until < %(until)s
"""

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
STEP_SECONDS: Final = 600.0  # seconds that a step can take; readings are stored meanwhile


class RollupProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the rollups are: readings stored with a time before `closed_until` are late (`late_readings.py`).

    Rollups hold all readings before `rolled_until`. Each `…_since` is where its table begins.
    """

    engine: str
    closed_until: datetime
    rolled_until: datetime
    raw_since: datetime
    minutes_since: datetime
    hours_since: datetime


async def close_until(database: Database, until: datetime) -> bool:
    """Move the watermark `closed_until` forward; return False if a transaction that stores readings holds the lock.

    A transaction that stores readings holds the lock shared and then reads the watermark. Once this function has
    the lock exclusively, no transaction can store an older reading without marking its hour.
    """
    async with database.transaction() as tx:
        await tx.execute(LOCK)
        try:
            async with tx.transaction():
                await tx.execute(LOCK_PROGRESS_ROW)
                await tx.execute(CLOSE, {"until": until})
        except psycopg.errors.LockNotAvailable:
            return False
    return True


PROGRESS: Final = (
    "SELECT engine, closed_until, rolled_until, raw_since, minutes_since, hours_since FROM rollup_progress"
)
# Held until the commit, so that if two processes both believe that they hold the lease, one of them waits.
CLAIM: Final = PROGRESS + " FOR UPDATE"
ROLLED: Final = "UPDATE rollup_progress SET rolled_until = %(until)s"


async def progress(tx: Tx) -> RollupProgress:
    """Return how far the rollups are."""
    return await _progress(tx, PROGRESS)


async def _progress(tx: Tx, statement: Any) -> RollupProgress:
    row = await fetch_row(tx, RollupProgress, statement)
    assert row is not None  # noqa: S101 the migration inserts it
    return row


LABELS: Final = ("good", "uncertain", "bad", "stale", "unknown")
_COUNTS: Final = ", ".join(f"{label}_count" for label in LABELS)
COLUMNS: Final = f"count, {_COUNTS}, n, sum, sum_sq, min, max, first, first_time, last, last_time"

# A sum or a square that overflows a double would fail the statement for every series. Values close to the limit
# therefore count as infinite, and tiny values as zero.
USABLE: Final = "CASE WHEN quality IN ('good', 'uncertain') THEN value END"


def summand(v: str) -> str:
    """Return the SQL for what a usable value adds to the sum."""
    return f"CASE WHEN abs({v}) < 1e290 THEN {v} ELSE sign({v}) * 'Infinity'::float8 END"


def square(v: str) -> str:
    """Return the SQL for what a usable value adds to the sum of squares."""
    return (
        f"CASE WHEN abs({v}) < 1e-150 THEN 0 WHEN abs({v}) < 1e140 THEN {v} * {v}"
        f" WHEN {v} IS NOT NULL THEN 'Infinity'::float8 END"
    )


# One array for the first and the last value, so that the rows are sorted once.
_VALUES: Final = "(array_agg(v ORDER BY time) FILTER (WHERE v IS NOT NULL))"
FROM_RAW: Final = f"""
count(*), {", ".join(f"count(*) FILTER (WHERE quality = '{label}')" for label in LABELS)},
count(v), sum({summand("v")}), sum({square("v")}), min(v), max(v),
{_VALUES}[1], min(time) FILTER (WHERE v IS NOT NULL), {_VALUES}[count(v)], max(time) FILTER (WHERE v IS NOT NULL)
"""
_FIRSTS: Final = "(array_agg(first ORDER BY bucket) FILTER (WHERE n > 0))"
_LASTS: Final = "(array_agg(last ORDER BY bucket) FILTER (WHERE n > 0))"
FROM_ROLLUP: Final = f"""
sum(count), {", ".join(f"sum({label}_count)" for label in LABELS)},
sum(n), sum(sum), sum(sum_sq), min(min), max(max),
{_FIRSTS}[1], min(first_time), {_LASTS}[count(*) FILTER (WHERE n > 0)], max(last_time)
"""
_UPSERT: Final = "ON CONFLICT (agent_uuid, metric_name, bucket) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in COLUMNS.split(", ")
)


def _rollup_sql(unit: str, target: str, source: str, columns: str, select: str, time: str) -> str:
    return f"""
INSERT INTO {target} (bucket, agent_uuid, metric_name, {COLUMNS})
SELECT date_trunc('{unit}', {time}, 'UTC'), agent_uuid, metric_name, {columns}
FROM (SELECT {select} FROM {source} WHERE {time} >= %(start)s AND {time} < %(end)s) r
GROUP BY 1, 2, 3
{_UPSERT}
"""


_READING: Final = f"agent_uuid, metric_name, time, quality, {USABLE} AS v"
MINUTES: Final = _rollup_sql("minute", "readings_1m", "readings", FROM_RAW, _READING, "time")
HOURS: Final = _rollup_sql("hour", "readings_1h", "readings_1m", FROM_ROLLUP, "*", "bucket")
HOURS_RAW: Final = _rollup_sql("hour", "readings_1h", "readings", FROM_RAW, _READING, "time")
DAYS: Final = _rollup_sql("day", "readings_daily", "readings_1h", FROM_ROLLUP, "*", "bucket")


def _recompute_sql(unit: str, target: str, source: str, columns: str, select: str, time: str, width: str) -> str:
    """Return the same statement for given hours or days of some agents; joined by series to use the index."""
    return f"""
INSERT INTO {target} (bucket, agent_uuid, metric_name, {COLUMNS})
SELECT date_trunc('{unit}', {time}, 'UTC'), agent_uuid, metric_name, {columns}
FROM (
    SELECT r.* FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[]) AS m (agent, since)
    JOIN series s ON s.agent_uuid = m.agent
    CROSS JOIN LATERAL (
        SELECT {select} FROM {source} x
        WHERE x.agent_uuid = s.agent_uuid AND x.metric_name = s.metric_name
          AND {time} >= m.since AND {time} < m.since + interval '1 {width}'
          AND {time} >= %(start)s AND {time} < %(end)s
    ) r
) r
GROUP BY 1, 2, 3
{_UPSERT}
"""


RECOMPUTE_MINUTES: Final = _recompute_sql("minute", "readings_1m", "readings", FROM_RAW, _READING, "time", "hour")
RECOMPUTE_HOURS: Final = _recompute_sql("hour", "readings_1h", "readings_1m", FROM_ROLLUP, "*", "bucket", "hour")
# For hours whose minute rollups are dropped already.
RECOMPUTE_HOURS_RAW: Final = _recompute_sql("hour", "readings_1h", "readings", FROM_RAW, _READING, "time", "hour")
RECOMPUTE_DAYS: Final = _recompute_sql("day", "readings_daily", "readings_1h", FROM_ROLLUP, "*", "bucket", "day")

# A plan made without the bounds would open and lock every partition.
STEP_SETTINGS: Final = f"""
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL work_mem = '64MB';
SET LOCAL statement_timeout = '{STEP_SECONDS:.0f}s'
"""


async def lock_progress(tx: Tx) -> RollupProgress:
    """Return how far the rollups are, and lock them against changes by others until the commit."""
    await tx.execute(STEP_SETTINGS)
    return await _progress(tx, CLAIM)


async def advance(database: Database, step: timedelta) -> timedelta:
    """Roll up at most one `step` of closed time; return how much closed time is left.

    The partitions must exist. Repeating a step changes nothing, so a crash costs only that step.
    """
    async with database.transaction(unbounded=True) as tx:
        at = await lock_progress(tx)
        if at.engine != "plain" or at.rolled_until >= at.closed_until:
            return timedelta()
        if at.rolled_until < at.minutes_since:  # old readings, for which minute rollups are not kept
            until = min(at.closed_until, at.minutes_since, floor(at.rolled_until, HOUR) + max(step, HOUR))
            statements = [(HOURS_RAW, HOUR), (DAYS, DAY)]
        else:
            until = min(at.closed_until, at.rolled_until + step)
            statements = [(MINUTES, MINUTE), (HOURS, HOUR), (DAYS, DAY)]
        for statement, width in statements:
            span = {"start": floor(at.rolled_until, width), "end": floor(until, width)}
            if span["start"] < span["end"]:
                await tx.execute(statement, span)
        await tx.execute(ROLLED, {"until": until})
        return at.closed_until - until


async def recompute_hours(
    tx: Tx, at: RollupProgress, day: datetime, marked: Sequence[tuple[UUID, datetime]]
) -> None:
    """Recompute these hours of agents, all of one day, and the day itself; the partitions must exist."""
    end, rolled = day + DAY, at.rolled_until
    # Once the readings of an hour are dropped, recomputing would replace its rollup by the late reading alone.
    marked = [(agent, hour) for agent, hour in marked if hour >= at.raw_since]
    kept = [(agent, hour) for agent, hour in marked if hour >= at.minutes_since]
    gone = [(agent, hour) for agent, hour in marked if hour < at.minutes_since]
    await _run(tx, RECOMPUTE_MINUTES, kept, day, min(end, floor(rolled, MINUTE)))
    await _run(tx, RECOMPUTE_HOURS, kept, day, min(end, floor(rolled, HOUR)))
    await _run(tx, RECOMPUTE_HOURS_RAW, gone, day, min(end, floor(rolled, HOUR)))
    await _run(tx, RECOMPUTE_DAYS, sorted({(agent, day) for agent, _ in marked}), day, min(end, floor(rolled, DAY)))


async def recompute_edges(tx: Tx, at: RollupProgress, agent: UUID, before: datetime) -> None:
    """Recompute the hour and the day that contain `before` from finer rollups, because their readings are gone.

    Where the finer rollups are gone too, the whole hour or day was deleted.
    """
    day, hour = floor(before, DAY), floor(before, HOUR)
    if hour < before and hour >= at.minutes_since:
        await _run(tx, RECOMPUTE_HOURS, [(agent, hour)], day, day + DAY)
    if day < before and day >= at.hours_since:
        await _run(tx, RECOMPUTE_DAYS, [(agent, day)], day, day + DAY)


async def _run(
    tx: Tx, statement: Any, pairs: Sequence[tuple[UUID, datetime]], start: datetime, end: datetime
) -> None:
    if pairs and start < end:
        agents, times = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        await tx.execute(statement, {"agents": agents, "times": times, "start": start, "end": end})
