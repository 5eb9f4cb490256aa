"""Background work runs in one process at a time, and every task of it shows when it last succeeded."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from iotistica.background import schedule
from iotistica.background.retention import RetentionLimits
from iotistica.disk_space import DiskSpace
from iotistica.process_health import ProcessHealth
from iotistica.storage import lease
from iotistica.storage.agents.directory import Directory
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import run_beside

QUICK = ("presence", "rollouts", "job-timeouts")  # tasks that run every few seconds


async def test_a_process_that_lost_the_lease_without_knowing_writes_nothing(
    redis: Redis, database: Database
) -> None:
    """Every task succeeds at first; once another process has claimed the fencing number, every one of them fails."""
    health = ProcessHealth(breakers=[])

    async def background(stop: asyncio.Event) -> None:
        await schedule.run(
            stop,
            redis=redis,
            database=database,
            directory=Directory(database),
            ages=RetentionLimits(raw=730, minutes=730, hours=3650),
            process_health=health,
            disk_space=DiskSpace(None, health.alarms),
            silence=timedelta(minutes=5),
        )

    async with run_beside("background", background):
        await _until(lambda: bool(health.tasks) and all(task.last_success for task in health.tasks.values()))
        assert {*QUICK} < health.tasks.keys()
        await lease.fenced(database, "background")
        await _until(lambda: all(health.tasks[name].failures for name in QUICK))
        before = {name: health.tasks[name].last_success for name in QUICK}
        await _until(lambda: all(health.tasks[name].failures > 1 for name in QUICK))
        assert {name: health.tasks[name].last_success for name in QUICK} == before
    assert not health.tasks, "a process without the lease shows no tasks"


async def _until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_true():
            await asyncio.sleep(0.1)
