"""Deletes readings that are to be erased, and those that a tenant is no longer shown; a day at a time."""

import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import erasures
from iotistica.storage.telemetry.erasures import DAY

TURN: Final = 5.0  # seconds of a round, for each of the two

Reached = dict[TenantId, datetime]
"""The next day of each tenant whose old days are gone over; a new process begins at the first."""


async def erase(
    database: Database, tenants: Collection[Tenant], now: datetime, reached: Reached, *, retention_days: int
) -> None:
    """Go on with it for a while."""
    await _asked_for(database)
    until, oldest = time.monotonic() + TURN, floor(now, DAY) - timedelta(days=retention_days)
    for tenant in tenants:
        if tenant.retention_days is not None:
            await _no_longer_shown(
                database, tenant, now, max(oldest, reached.get(tenant.tenant_id, oldest)), until, reached
            )


async def _asked_for(database: Database) -> None:
    until = time.monotonic() + TURN
    while time.monotonic() < until:
        async with database.transaction(unbounded=True) as tx:
            one = await erasures.next_open(tx)
            if one is None:
                return
            done = await erasures.erase_next_day(tx, one)
        if done:
            logger.bind(tenant=one.tenant_id, agent=str(one.agent_uuid), readings=one.readings).info("erased")


async def _no_longer_shown(
    database: Database, tenant: Tenant, now: datetime, day: datetime, until: float, reached: Reached
) -> None:
    """Once a day go over all the days, since what came late may be of any; at least one in a turn."""
    before = floor(now - timedelta(days=tenant.retention_days or 0), DAY)
    if tenant.erased_until is not None and tenant.erased_until >= before:
        reached.pop(tenant.tenant_id, None)
        return
    while day < before:
        async with database.transaction(unbounded=True) as tx:
            await erasures.erase_day(tx, tenant.tenant_id, day)
        day += DAY
        reached[tenant.tenant_id] = day
        if time.monotonic() >= until:
            break
    if day >= before:
        async with database.transaction(unbounded=True) as tx:
            await erasures.erase_old_rollups(tx, tenant.tenant_id, before)
        reached.pop(tenant.tenant_id, None)
