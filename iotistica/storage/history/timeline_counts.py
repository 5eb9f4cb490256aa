"""Counts in memory, by hour, of events too frequent to write one by one; written to the timeline every 5 s."""

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
EVENTS_LIMIT: Final = 20_000  # different events counted; further ones are skipped until the next write


class TimelineCounts:
    """The counts of this process; those not yet written are lost if it is killed."""

    def __init__(self, database: Database) -> None:
        """`database` has a role that can write events of every tenant."""
        self._database = database
        self._counted: dict[tuple[TenantId, UUID, str, str], TimelineEvent] = {}

    def add(self, tenant: TenantId, agent: UUID, kind: str, details: dict[str, Any], *, word: str = "") -> None:
        """Count an event; events of one kind and word within an hour share a row with the details of the last."""
        now = datetime.now(UTC)
        dedupe_key = hourly_key(word, now)
        key = tenant, agent, kind, dedupe_key
        known = self._counted.get(key)
        if known is None and len(self._counted) >= EVENTS_LIMIT:
            return
        # The time of the latest: whether an agent connected or left last is told by these times.
        self._counted[key] = TimelineEvent(
            agent=agent,
            at=now,
            kind=kind,
            details=details,
            dedupe_key=dedupe_key,
            times=known.times + 1 if known else 1,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Write every few seconds until `stop` is set, then once more."""
        while not stop.is_set():
            await sleep(WRITE_SECONDS, stop)
            await self.write()

    async def write(self) -> None:
        """Write the counts; they are kept if the database is unavailable."""
        taken, self._counted = self._counted, {}
        by_tenant: dict[TenantId, list[TimelineEvent]] = {}
        for (tenant, *_), event in taken.items():
            by_tenant.setdefault(tenant, []).append(event)
        try:
            for tenant, rows in by_tenant.items():
                async with self._database.transaction() as tx:
                    await timeline.add(tx, tenant, rows)
                taken = {key: event for key, event in taken.items() if key[0] != tenant}
        except Unavailable:
            for key, event in taken.items():
                newer = self._counted.get(key)
                times = event.times + (newer.times if newer else 0)
                self._counted[key] = msgspec.structs.replace(newer or event, times=times)
