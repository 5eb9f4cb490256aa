"""What happens to agents too often to write each time: counted by the hour in memory, written every few seconds."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent, hourly_key
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep

WRITE_SECONDS: Final = 5.0  # seconds between writes
EVENTS_LIMIT: Final = 20_000  # counted apart; more are left out until the next write


class TimelineCounts:
    """One a process; what it has not written when it is killed is lost."""

    def __init__(self, database: Database) -> None:
        """`database` sees every tenant."""
        self._database = database
        self._counted: dict[tuple[TenantId, UUID, str, str], TimelineEvent] = {}

    def add(self, tenant: TenantId, agent: UUID, kind: str, details: dict[str, Any], *, word: str = "") -> None:
        """Count something; what has the same kind and word within an hour is one, with the details of the last."""
        now = datetime.now(UTC)
        once = hourly_key(word, now)
        key = tenant, agent, kind, once
        known = self._counted.get(key)
        if known is None and len(self._counted) >= EVENTS_LIMIT:
            return
        at, times = (known.at, known.times + 1) if known else (now, 1)
        self._counted[key] = TimelineEvent(
            agent=agent, at=at, kind=kind, details=details, dedupe_key=once, times=times
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`, and what is left then."""
        while not stop.is_set():
            await sleep(WRITE_SECONDS, stop)
            await self.write()

    async def write(self) -> None:
        """Write what was counted; while the database is away it is kept."""
        taken, self._counted = self._counted, {}
        by_tenant: dict[TenantId, list[TimelineEvent]] = {}
        for (tenant, *_), happened in taken.items():
            by_tenant.setdefault(tenant, []).append(happened)
        try:
            for tenant, rows in by_tenant.items():
                async with self._database.transaction() as tx:
                    await timeline.add(tx, tenant, rows)
                taken = {key: one for key, one in taken.items() if key[0] != tenant}
        except Unavailable:
            for key, one in taken.items():
                newer = self._counted.get(key)
                times = one.times + (newer.times if newer else 0)
                self._counted[key] = msgspec.structs.replace(newer or one, at=one.at, times=times)
