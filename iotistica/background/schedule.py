"""The timed work of an installation, in one process at a time: rounds of upkeep, and the rollups beside them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from iotistica.background import (
    agent_updates,
    cleanup,
    clock_skew,
    dead_letter_timeline,
    delivery_checks,
    disk_budget,
    erasures,
    presence,
    retention,
    rollouts,
    rollups,
)
from iotistica.background.retention import RetentionLimits
from iotistica.disk_space import DiskSpace
from iotistica.process_health import ProcessHealth
from iotistica.storage import lease
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import ledger, stream_stats
from iotistica.storage.delivery.streams import KINDS
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import run_beside, sleep

EVERY: Final = 20.0  # seconds between rounds
UNFOLDED: Final = timedelta(minutes=1)  # ledger rows younger than this stay single


async def run(
    stop: asyncio.Event,
    *,
    redis: Redis,
    database: Database,
    directory: Directory,
    ages: RetentionLimits,
    process_health: ProcessHealth,
    disk_space: DiskSpace,
    silence: timedelta,
) -> None:
    """Do a round at once and then every `EVERY` seconds, for as long as the lease is ours."""
    async with lease.hold(redis, "background", stop) as fence:
        if fence is None:
            return
        database = await lease.fenced(database, "background")
        erased: erasures.Reached = {}
        watches = clock_skew.ClockSkewWatch()
        async with (
            run_beside("rollups", rollups.follow(database, process_health.alarms, disk_space)),
            run_beside("presence", presence.follow(redis, database, directory, silence)),
            run_beside("jobs", rollouts.follow(redis, database, directory)),
        ):
            while not stop.is_set():
                now = datetime.now(UTC)
                await retention.keep(database, ages, now)
                await disk_budget.look(database, ages, process_health, disk_space, now)
                shown = (await directory.tenants()).values()
                await erasures.erase(database, shown, now, erased, retention_days=ages.raw)
                await watches.look(database, now)
                await _ledgers(redis, database, directory, now)
                await dead_letter_timeline.tell(redis, database, sorted(await directory.tenants()))
                await cleanup.remove(database, now)
                await agent_updates.end(database)
                await delivery_checks.look(
                    redis, database, sorted(await directory.tenants()), process_health.alarms, now
                )
                await sleep(EVERY, stop)


async def _ledgers(redis: Redis, database: Database, directory: Directory, now: datetime) -> None:
    before = now - UNFOLDED
    async with database.transaction() as tx:
        await ledger.fold_readings(tx, before=before)
    for tenant in await directory.tenants():
        still_open = [id_ for kind in KINDS for id_ in await stream_stats.pending_entry_ids(redis, tenant, kind)]
        async with database.transaction() as tx:
            await ledger.fold_payloads(tx, tenant, before=before, still_open=still_open)
