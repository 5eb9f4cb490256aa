"""Late readings: storing them marks their hours, whose rollups are then recomputed.

A reading is late if its time is before the watermark `closed_until` of the rollups when it is stored; on
TimescaleDB, if it is older than a minute, since its refreshes stay two minutes behind. Until its hour is recomputed
or refreshed, queries read its readings instead of its rollups (`coverage.py`).
"""

from datetime import datetime
from typing import Final

from iotistica.storage.postgres import Database, Tx
from iotistica.storage.telemetry import rollups

HOURS_LIMIT: Final = 5_000  # hours of agents recomputed in one transaction

# A part of the statement that stores readings, which are the rows of `stored`.
MARK_HOURS: Final = """
    INSERT INTO rollup_marks (agent_uuid, hour)
    SELECT DISTINCT agent_uuid, date_trunc('hour', time, 'UTC') FROM stored WHERE time < %(closed)s
"""
# Hours whose readings are dropped already cannot be recomputed.
OLDEST_HOUR: Final = """
SELECT min(m.hour) FROM rollup_marks m JOIN rollup_progress p ON m.hour >= p.raw_since
WHERE %(reached)s::timestamptz IS NULL OR m.hour >= %(reached)s
"""
NEWEST_HOUR: Final = "SELECT max(hour) FROM rollup_marks WHERE hour < %(before)s"
TAKE_HOURS: Final = """
DELETE FROM rollup_marks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM rollup_marks WHERE hour >= %(start)s AND hour < %(end)s LIMIT %(most)s))
RETURNING agent_uuid, hour
"""


MARK_SEEN: Final = "UPDATE rollup_marks SET seen_at = clock_timestamp() WHERE seen_at IS NULL"
# Hours whose readings are dropped already cannot be refreshed; they are forgotten, too.
FORGET_SEEN: Final = """
DELETE FROM rollup_marks
WHERE (seen_at < %(before)s AND hour >= %(reached)s) OR hour < (SELECT raw_since FROM rollup_progress)
"""


async def mark_seen(tx: Tx) -> None:
    """Set the time at which these marks are visible, which is after the commit of their readings."""
    await tx.execute(MARK_SEEN)


async def forget_seen(tx: Tx, before: datetime, reached: datetime) -> None:
    """Delete the marks that were seen before `before`: refreshes that started then include their readings.

    Hours before `reached` are in no refresh; they stay until their readings are dropped.
    """
    await tx.execute(FORGET_SEEN, {"before": before, "reached": reached})


async def oldest_hour(tx: Tx, reached: datetime | None = None) -> datetime | None:
    """Return the oldest marked hour that can be recomputed, or None; those before `reached` cannot."""
    row = await (await tx.execute(OLDEST_HOUR, {"reached": reached})).fetchone()
    return row[0] if row else None


async def newest_hour(tx: Tx, before: datetime) -> datetime | None:
    """Return the newest marked hour before `before`, or None."""
    row = await (await tx.execute(NEWEST_HOUR, {"before": before})).fetchone()
    return row[0] if row else None


async def recompute_hours(database: Database, day: datetime) -> int:
    """Recompute the marked hours of a day, at most `HOURS_LIMIT`; return how many marks were processed.

    The partitions must exist.
    """
    async with database.transaction(unbounded=True) as tx:
        at = await rollups.lock_progress(tx)
        parameters = {"start": day, "end": day + rollups.DAY, "most": HOURS_LIMIT}
        marks = await (await tx.execute(TAKE_HOURS, parameters)).fetchall()
        # The recomputing statements are separate, so that they see every reading whose mark was deleted.
        await rollups.recompute_hours(tx, at, day, sorted({(agent, hour) for agent, hour in marks}))
        return len(marks)
