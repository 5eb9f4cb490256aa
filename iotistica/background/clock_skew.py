"""Notices agents whose clocks are wrong: by the newest time that they measured, against when it came."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cachetools import LRUCache

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import ledger
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent, hourly_key
from iotistica.storage.postgres import Database

AHEAD: Final = timedelta(seconds=60)
BEHIND: Final = timedelta(minutes=10)
LOOKS: Final = 60  # without one fresh value until a clock is behind: what was kept during an outage comes late too
REMEMBERED: Final = 100_000  # agents that lag; above that, those seen least recently are forgotten


class ClockSkewWatch:
    """Looked at once a round, before the ledger is folded."""

    def __init__(self) -> None:
        self._late: LRUCache[UUID, int] = LRUCache(REMEMBERED)

    async def look(self, database: Database, now: datetime) -> None:
        """Put on the timeline whose clock is ahead, or has been behind for many rounds of live data."""
        async with database.transaction() as tx:
            happened: dict[TenantId, list[TimelineEvent]] = {}
            for tenant, agent, skew in await ledger.clock_offsets(tx):
                late = self._lateness(agent, skew)
                if skew < AHEAD and late < LOOKS:
                    continue
                kind = "clock.ahead" if skew > timedelta(0) else "clock.behind"
                details = {"seconds": round(abs(skew.total_seconds()))}
                one = TimelineEvent(agent=agent, at=now, kind=kind, details=details, dedupe_key=hourly_key("", now))
                happened.setdefault(tenant, []).append(one)
            for tenant, rows in happened.items():
                await timeline.add(tx, tenant, rows)

    def _lateness(self, agent: UUID, skew: timedelta) -> int:
        """The rounds for which nothing fresh has come."""
        if skew > -BEHIND:
            self._late.pop(agent, None)
            return 0
        rounds = self._late.get(agent, 0) + 1
        self._late[agent] = rounds
        return rounds
