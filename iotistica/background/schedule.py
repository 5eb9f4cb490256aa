"""The background tasks of an installation, and how often each of them runs.

`app.py` runs them as the group `background`, in the process that holds the lease of that name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from iotistica.background import (
    agent_updates,
    cleanup,
    clock_skew,
    dead_letter_timeline,
    delivery_checks,
    disk_budget,
    erasures,
    ledger_folding,
    presence,
    retention,
    rollouts,
    rollups,
)
from iotistica.background.periodic_task import PeriodicTask, raise_alarm, repeat
from iotistica.background.retention import RetentionLimits
from iotistica.disk_space import DiskSpace
from iotistica.domain.ids import TenantId
from iotistica.process_health import ProcessHealth
from iotistica.storage import lease
from iotistica.storage.agents.directory import Directory
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import run_beside, sleep

EVERY: Final = 20.0  # seconds between two runs of a housekeeping task
SLOTS: Final = 3  # housekeeping tasks at a time; each uses a database connection


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
    """Run every task for as long as this process holds the lease; their transactions check its fencing number."""
    async with lease.hold(redis, "background", stop) as held, AsyncExitStack() as running:
        if held is None:
            return
        database = await lease.fenced(database, "background")
        urgent = [
            PeriodicTask("presence", presence.EVERY, partial(presence.update, redis, database, directory, silence)),
            PeriodicTask("rollups", rollups.EVERY, rollups.RollupTask(database, process_health.alarms, disk_space)),
            *rollouts.tasks(redis, database, directory),
        ]
        housekeeping = _housekeeping(redis, database, directory, ages, process_health, disk_space)
        running.callback(process_health.tasks.clear)
        slots = asyncio.Semaphore(SLOTS)
        for task in [*urgent, *housekeeping]:
            group = repeat(task, process_health, slots if task in housekeeping else None)
            await running.enter_async_context(run_beside(task.name, group, longest_wait=task.every))
        while not stop.is_set():
            raise_alarm(process_health)
            await sleep(EVERY, stop)


def _housekeeping(
    redis: Redis,
    database: Database,
    directory: Directory,
    ages: RetentionLimits,
    process_health: ProcessHealth,
    disk_space: DiskSpace,
) -> list[PeriodicTask]:
    alarms, folding, keeping = process_health.alarms, asyncio.Lock(), asyncio.Lock()
    tenant_retention, watch = erasures.TenantRetention(ages.raw), clock_skew.ClockSkewWatch()

    async def tenants() -> Sequence[TenantId]:
        return sorted(await directory.tenants())

    async def keep_retention() -> None:
        async with keeping:
            await retention.keep(database, ages, datetime.now(UTC))

    async def keep_disk_budget() -> None:
        async with keeping:  # at the start after the partitions are made, which are measured
            await disk_budget.check(database, ages, process_health, disk_space, datetime.now(UTC))

    async def keep_tenant_retention() -> None:
        await tenant_retention.run(database, (await directory.tenants()).values(), datetime.now(UTC))

    async def watch_clocks() -> None:
        await watch.check(database, datetime.now(UTC))

    async def fold_ledgers() -> None:
        async with folding:
            await ledger_folding.fold(redis, database, await tenants(), datetime.now(UTC))

    async def check_ledgers() -> None:
        async with folding:  # rows that are being folded would be counted twice, or not at all
            await delivery_checks.check_ledgers(redis, database, await tenants(), alarms)

    async def merge_message_runs() -> None:
        await delivery_checks.merge_message_runs(database, datetime.now(UTC))

    async def release_parked() -> None:
        await delivery_checks.release_parked(redis, database, await tenants(), datetime.now(UTC))

    async def delete_gone_consumers() -> None:
        await delivery_checks.delete_gone_consumers(redis, await tenants())

    async def check_dead_letters() -> None:
        await delivery_checks.check_dead_letters(redis, await tenants(), alarms, datetime.now(UTC))

    async def record_dead_letters() -> None:
        await dead_letter_timeline.record(redis, database, await tenants())

    async def clean_up() -> None:
        await cleanup.delete_old(database, datetime.now(UTC))

    work: dict[str, Callable[[], Awaitable[object]]] = {
        "retention": keep_retention,
        "disk-budget": keep_disk_budget,
        "erasures": partial(erasures.erase, database),
        "tenant-retention": keep_tenant_retention,
        "clock-skew": watch_clocks,
        "ledger-folding": fold_ledgers,
        "ledger-balance": check_ledgers,
        "message-gaps": merge_message_runs,
        "parked-messages": release_parked,
        "gone-consumers": delete_gone_consumers,
        "dead-letters": check_dead_letters,
        "dead-letter-timeline": record_dead_letters,
        "cleanup": clean_up,
        "agent-updates": partial(agent_updates.end, database),
    }
    return [PeriodicTask(name, EVERY, run) for name, run in work.items()]
