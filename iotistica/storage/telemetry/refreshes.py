"""The last runs of TimescaleDB's refresh policies."""

from datetime import datetime
from typing import Final

import msgspec

from iotistica.domain.telemetry.refresh_runs import RefreshRun
from iotistica.storage.postgres import Tx, fetch_rows
from iotistica.storage.telemetry.continuous_aggregates import NAMES

# Before the first run of a job, its times are -infinity.
LAST_RUNS: Final = """
SELECT c.view_name AS name, nullif(s.last_run_started_at, '-infinity') AS started,
       nullif(s.last_successful_finish, '-infinity') AS finished
FROM timescaledb_information.jobs j JOIN timescaledb_information.job_stats s USING (job_id)
JOIN timescaledb_information.continuous_aggregates c
    ON c.view_name = j.hypertable_name OR c.materialization_hypertable_name = j.hypertable_name
WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND c.view_name = ANY(%(names)s)
"""
# A refresh includes only whole buckets of its window: of the oldest day that is kept, no day and not every hour.
REACHED: Final = """
SELECT date_trunc('day', max(now() - (j.config->>'start_offset')::interval), 'UTC') + interval '1 day'
FROM timescaledb_information.jobs j WHERE j.proc_name = 'policy_refresh_continuous_aggregate'
"""
DAYS_ROLLED: Final = "SELECT days_rolled_until()"


class _Run(msgspec.Struct, frozen=True):
    name: str
    started: datetime | None
    finished: datetime | None


async def last_runs(tx: Tx) -> list[tuple[str, RefreshRun | None]]:
    """Return the last run of each refresh; None for one that is running, has failed or has not run yet."""
    rows = await fetch_rows(tx, _Run, LAST_RUNS, {"names": list(NAMES)})
    return [
        (row.name, RefreshRun(row.started, row.finished))
        if row.started and row.finished and row.finished >= row.started
        else (row.name, None)
        for row in rows
    ]


async def reached(tx: Tx) -> datetime | None:
    """Return the start of the oldest day that every refresh includes; None if there are no refreshes."""
    row = await (await tx.execute(REACHED)).fetchone()
    return row[0] if row else None


async def days_rolled_until(tx: Tx) -> datetime:
    """Return the time before which every day is rolled up, except for late readings; on either engine."""
    row = await (await tx.execute(DAYS_ROLLED)).fetchone()
    assert row is not None  # noqa: S101 a function returns a row
    return row[0]  # type: ignore[no-any-return]
