"""Detects wrong clocks of agents by comparing the newest measured time with its time of arrival."""

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
# Rounds without a fresh value after which a clock counts as behind: readings kept during an outage are late too.
ROUNDS_BEHIND: Final = 60
REMEMBERED: Final = 100_000  # agents whose late rounds are counted; those seen least recently are forgotten


class ClockSkewWatch:
    """Counts each agent's rounds without fresh values; one round runs before each folding of the ledger."""

    def __init__(self) -> None:
        self._late: LRUCache[UUID, int] = LRUCache(REMEMBERED)

    async def check(self, database: Database, now: datetime) -> None:
        """Record on their timelines the agents whose clock is ahead, or was behind for `ROUNDS_BEHIND` rounds."""
        async with database.transaction() as tx:
            events: dict[TenantId, list[TimelineEvent]] = {}
            for tenant, agent, skew in await ledger.clock_offsets(tx):
                late = self._lateness(agent, skew)
                if skew < AHEAD and late < ROUNDS_BEHIND:
                    continue
                kind = "clock.ahead" if skew > timedelta(0) else "clock.behind"
                details = {"seconds": round(abs(skew.total_seconds()))}
                event = TimelineEvent(
                    agent=agent, at=now, kind=kind, details=details, dedupe_key=hourly_key("", now)
                )
                events.setdefault(tenant, []).append(event)
            for tenant, rows in events.items():
                await timeline.add(tx, tenant, rows)

    def _lateness(self, agent: UUID, skew: timedelta) -> int:
        """Return the number of rounds in a row in which the agent sent only late values."""
        if skew > -BEHIND:
            self._late.pop(agent, None)
            return 0
        rounds = self._late.get(agent, 0) + 1
        self._late[agent] = rounds
        return rounds
