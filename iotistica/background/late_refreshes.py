"""Forgets late hours on TimescaleDB once its refreshes have included them, and notices refreshes that fail."""

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final

from iotistica.domain.telemetry.refresh_runs import RefreshRun, included_before
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import late_readings, refreshes
from iotistica.storage.telemetry.continuous_aggregates import NAMES

RUNS: Final = 20  # runs of each refresh that are remembered


class LateRefreshes:
    """What this process has seen of the refreshes; after a restart, late hours wait until it has seen new ones."""

    def __init__(self) -> None:
        self._runs: dict[str, deque[RefreshRun]] = {name: deque(maxlen=RUNS) for name in NAMES}
        self._since = datetime.now(UTC)

    async def settle(self, database: Database) -> None:
        """Delete the marks of late hours that all three refreshes have included."""
        async with database.transaction() as tx:
            await late_readings.mark_seen(tx)
            for name, run in await refreshes.last_runs(tx):
                known = self._runs[name]
                if run is not None and (not known or known[-1] != run):
                    known.append(run)
            included = included_before(*(self._runs[name] for name in NAMES))
            reached = await refreshes.reached(tx)
            if included is not None and reached is not None:
                await late_readings.forget_seen(tx, included, reached)

    def behind(self, now: datetime) -> timedelta:
        """Return for how long the refresh that is furthest behind has not succeeded, as far as is known."""
        newest = [runs[-1].finished if runs else self._since for runs in self._runs.values()]
        return max(now - min(newest), timedelta())
