"""Rollups by minute, hour and day: followed behind a watermark, and computed anew where readings come late."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.postgres import Database, Tx, fetch_row

LOCK: Final = "SET LOCAL lock_timeout = '1s'"  # above a usual transaction's length, or we would never get it
# Before the other lock: who waits for this one must not hold up those who store.
LOCK_PROGRESS_ROW: Final = "SELECT FROM rollup_progress FOR UPDATE"
CLOSE: Final = """
UPDATE rollup_progress SET closed_until = %(until)s
FROM (SELECT pg_advisory_xact_lock(67351)) exclusive WHERE engine = 'plain' AND closed_until < %(until)s
"""

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
STEP_SECONDS: Final = 600.0  # seconds a step may take; readings wait for none of it
LATE_HOURS_LIMIT: Final = 5_000  # taken at a time


class RollupProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Readings before `closed_until` are marked when they are stored; rollups hold all before `rolled_until`."""

    engine: str
    closed_until: datetime
    rolled_until: datetime
    raw_since: datetime
    minutes_since: datetime
    hours_since: datetime


async def close_until(database: Database, until: datetime) -> bool:
    """Have readings before then marked from now on; False if a transaction that stores some holds us up.

    Whoever stores readings holds the lock shared and then reads the mark, so once we have it exclusively nobody
    stores unmarked what is before it.
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
# Held until the commit, so that of two processes that both believe they lead one waits.
CLAIM: Final = PROGRESS + " FOR UPDATE"
ROLLED: Final = "UPDATE rollup_progress SET rolled_until = %(until)s"


async def progress(tx: Tx) -> RollupProgress:
    """How far the rollups are."""
    return await _progress(tx, PROGRESS)


async def _progress(tx: Tx, statement: Any) -> RollupProgress:
    row = await fetch_row(tx, RollupProgress, statement)
    assert row is not None  # noqa: S101 the migration makes it
    return row


LABELS: Final = ("good", "uncertain", "bad", "stale", "unknown")
_COUNTS: Final = ", ".join(f"{label}_count" for label in LABELS)
COLUMNS: Final = f"count, {_COUNTS}, n, sum, sum_sq, min, max, first, first_time, last, last_time"

# A sum or a square that a double cannot hold would be an error for every series of the statement: what comes near
# counts as infinite, and what is next to nothing as nothing.
USABLE: Final = "CASE WHEN quality IN ('good', 'uncertain') THEN value END"


def summand(v: str) -> str:
    """What a usable value adds to the sum."""
    return f"CASE WHEN abs({v}) < 1e290 THEN {v} ELSE sign({v}) * 'Infinity'::float8 END"


def square(v: str) -> str:
    """What a usable value adds to the sum of squares."""
    return (
        f"CASE WHEN abs({v}) < 1e-150 THEN 0 WHEN abs({v}) < 1e140 THEN {v} * {v}"
        f" WHEN {v} IS NOT NULL THEN 'Infinity'::float8 END"
    )


# One array for both ends: the rows are sorted once.
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


def _forward(unit: str, target: str, source: str, columns: str, what: str, time: str) -> str:
    return f"""
INSERT INTO {target} (bucket, agent_uuid, metric_name, {COLUMNS})
SELECT date_trunc('{unit}', {time}, 'UTC'), agent_uuid, metric_name, {columns}
FROM (SELECT {what} FROM {source} WHERE {time} >= %(start)s AND {time} < %(end)s) r
GROUP BY 1, 2, 3
{_UPSERT}
"""


_READING: Final = f"agent_uuid, metric_name, time, quality, {USABLE} AS v"
MINUTES: Final = _forward("minute", "readings_1m", "readings", FROM_RAW, _READING, "time")
HOURS: Final = _forward("hour", "readings_1h", "readings_1m", FROM_ROLLUP, "*", "bucket")
HOURS_RAW: Final = _forward("hour", "readings_1h", "readings", FROM_RAW, _READING, "time")
DAYS: Final = _forward("day", "readings_daily", "readings_1h", FROM_ROLLUP, "*", "bucket")


def _anew(unit: str, target: str, source: str, columns: str, what: str, time: str, width: str) -> str:
    """The same for some agents' hours or days; by series, so that an index finds them."""
    return f"""
INSERT INTO {target} (bucket, agent_uuid, metric_name, {COLUMNS})
SELECT date_trunc('{unit}', {time}, 'UTC'), agent_uuid, metric_name, {columns}
FROM (
    SELECT r.* FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[]) AS m (agent, since)
    JOIN series s ON s.agent_uuid = m.agent
    CROSS JOIN LATERAL (
        SELECT {what} FROM {source} x
        WHERE x.agent_uuid = s.agent_uuid AND x.metric_name = s.metric_name
          AND {time} >= m.since AND {time} < m.since + interval '1 {width}'
          AND {time} >= %(start)s AND {time} < %(end)s
    ) r
) r
GROUP BY 1, 2, 3
{_UPSERT}
"""


LATE_MINUTES: Final = _anew("minute", "readings_1m", "readings", FROM_RAW, _READING, "time", "hour")
LATE_HOURS: Final = _anew("hour", "readings_1h", "readings_1m", FROM_ROLLUP, "*", "bucket", "hour")
# Where the minutes are gone already.
LATE_HOURS_RAW: Final = _anew("hour", "readings_1h", "readings", FROM_RAW, _READING, "time", "hour")
LATE_DAYS: Final = _anew("day", "readings_daily", "readings_1h", FROM_ROLLUP, "*", "bucket", "day")

# Planned by their bounds: without, each partition is opened and locked.
STEP_SETTINGS: Final = f"""
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL work_mem = '64MB';
SET LOCAL statement_timeout = '{STEP_SECONDS:.0f}s'
"""


async def lock_progress(tx: Tx) -> RollupProgress:
    """How far the rollups are; nobody else moves or changes them until the commit."""
    await tx.execute(STEP_SETTINGS)
    return await _progress(tx, CLAIM)


async def advance(database: Database, step: timedelta) -> timedelta:
    """Roll up at most one `step` of what is closed; returns how much is left.

    The partitions must be there. Done again it changes nothing, so a crash costs the step and no more.
    """
    async with database.transaction(unbounded=True) as tx:
        at = await lock_progress(tx)
        if at.engine != "plain" or at.rolled_until >= at.closed_until:
            return timedelta()
        if at.rolled_until < at.minutes_since:  # history, of which no minutes are kept
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


# Of what is gone already there is nothing to compute.
OLDEST_LATE_HOUR: Final = """
SELECT min(m.hour) FROM rollup_marks m JOIN rollup_progress p ON m.hour >= p.raw_since
"""
NEWEST_LATE_HOUR: Final = "SELECT max(hour) FROM rollup_marks WHERE hour < %(before)s"
TAKE_LATE_HOURS: Final = """
DELETE FROM rollup_marks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM rollup_marks WHERE hour >= %(start)s AND hour < %(end)s LIMIT %(marks)s))
RETURNING agent_uuid, hour
"""


async def oldest_late_hour(tx: Tx) -> datetime | None:
    """The first hour that must be computed anew."""
    row = await (await tx.execute(OLDEST_LATE_HOUR)).fetchone()
    return row[0] if row else None


async def newest_late_hour(tx: Tx, before: datetime) -> datetime | None:
    """The last hour before then that must be computed anew."""
    row = await (await tx.execute(NEWEST_LATE_HOUR, {"before": before})).fetchone()
    return row[0] if row else None


async def recompute_late_hours(database: Database, day: datetime) -> int:
    """Compute anew what late readings have changed of a day; returns how many marks that were.

    The partitions must be there.
    """
    async with database.transaction(unbounded=True) as tx:
        at = await lock_progress(tx)
        taken = await (
            await tx.execute(TAKE_LATE_HOURS, {"start": day, "end": day + DAY, "marks": LATE_HOURS_LIMIT})
        ).fetchall()
        # Statements of their own from here: what was stored before its mark was taken is seen by them.
        marked = sorted({(agent, hour) for agent, hour in taken})
        await _recompute(tx, at, day, marked)
        return len(taken)


async def _recompute(tx: Tx, at: RollupProgress, day: datetime, marked: Sequence[tuple[UUID, datetime]]) -> None:
    end, rolled = day + DAY, at.rolled_until
    # Of an hour whose readings were dropped one that comes late would take the place of all.
    marked = [(agent, hour) for agent, hour in marked if hour >= at.raw_since]
    kept = [(agent, hour) for agent, hour in marked if hour >= at.minutes_since]
    gone = [(agent, hour) for agent, hour in marked if hour < at.minutes_since]
    await _run(tx, LATE_MINUTES, kept, day, min(end, floor(rolled, MINUTE)))
    await _run(tx, LATE_HOURS, kept, day, min(end, floor(rolled, HOUR)))
    await _run(tx, LATE_HOURS_RAW, gone, day, min(end, floor(rolled, HOUR)))
    await _run(tx, LATE_DAYS, sorted({(agent, day) for agent, _ in marked}), day, min(end, floor(rolled, DAY)))


async def recompute_edges(tx: Tx, at: RollupProgress, agent: UUID, before: datetime) -> None:
    """Make anew the hour and the day of `before` of what finer rollups hold of them: their readings are gone.

    What is no longer held finer was dropped whole.
    """
    day, hour = floor(before, DAY), floor(before, HOUR)
    if hour < before and hour >= at.minutes_since:
        await _run(tx, LATE_HOURS, [(agent, hour)], day, day + DAY)
    if day < before and day >= at.hours_since:
        await _run(tx, LATE_DAYS, [(agent, day)], day, day + DAY)


async def _run(
    tx: Tx, statement: Any, pairs: Sequence[tuple[UUID, datetime]], start: datetime, end: datetime
) -> None:
    if pairs and start < end:
        agents, times = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        await tx.execute(statement, {"agents": agents, "times": times, "start": start, "end": end})
