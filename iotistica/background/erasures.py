"""Deletes readings by erasure requests and by the retention of tenants, a day at a time."""

import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from loguru import logger

from iotistica.background.periodic_task import for_each
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.errors import Superseded, Unavailable
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import erasures
from iotistica.storage.telemetry.erasures import DAY, Erasure

TURN: Final = 5.0  # seconds of work in one run of a task


async def erase(database: Database) -> None:
    """Continue the requested erasures, the oldest first; an erasure that fails does not delay the others."""
    until, failures = time.monotonic() + TURN, dict[Erasure, Exception]()
    while time.monotonic() < until:
        erasure: Erasure | None = None
        try:
            async with database.transaction(unbounded=True) as tx:
                erasure = await erasures.next_open(tx, exclude=[failed.erasure_id for failed in failures])
                if erasure is None:
                    break
                done = await erasures.erase_next_day(tx, erasure)
        except (Unavailable, Superseded):
            raise
        except Exception as exc:
            if erasure is None:
                raise
            failures[erasure] = exc
            continue
        if done:
            fields = {"tenant": erasure.tenant_id, "agent": str(erasure.agent_uuid)}
            logger.bind(**fields, readings=erasure.readings).info("an erasure was completed")
    if failures:
        raise ExceptionGroup("erasures failed", [*failures.values()])


class TenantRetention:
    """Deletes the readings of tenants that keep them for fewer days than the installation does."""

    def __init__(self, retention_days: int) -> None:
        """`retention_days` is the retention of the installation, after which whole partitions are dropped."""
        self._retention_days = retention_days
        self.next_day: dict[TenantId, datetime] = {}
        """The next day to delete, for each tenant that is not done; a new process starts at the oldest day."""

    async def run(self, database: Database, tenants: Collection[Tenant], now: datetime) -> None:
        """Continue for `TURN` seconds, but delete at least one day of each tenant."""
        until, oldest = time.monotonic() + TURN, floor(now, DAY) - timedelta(days=self._retention_days)

        async def erase_of(tenant: Tenant) -> None:
            if tenant.retention_days is not None:
                await self._erase(database, tenant, tenant.retention_days, now, oldest, until)

        await for_each(tenants, erase_of)

    async def _erase(
        self, database: Database, tenant: Tenant, days: int, now: datetime, oldest: datetime, until: float
    ) -> None:
        """Delete all old days once a day, since late readings can belong to any of them."""
        before, day = floor(now - timedelta(days=days), DAY), self.next_day.get(tenant.tenant_id, oldest)
        if tenant.erased_until is not None and tenant.erased_until >= before:
            self.next_day.pop(tenant.tenant_id, None)
            return
        day = max(oldest, day)
        while day < before:
            async with database.transaction(unbounded=True) as tx:
                await erasures.erase_day(tx, tenant.tenant_id, day)
            day += DAY
            self.next_day[tenant.tenant_id] = day
            if time.monotonic() >= until:
                break
        if day >= before:
            async with database.transaction(unbounded=True) as tx:
                await erasures.erase_old_rollups(tx, tenant.tenant_id, before)
            self.next_day.pop(tenant.tenant_id, None)
