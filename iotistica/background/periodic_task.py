"""Periodic background tasks, each supervised separately and monitored by its name."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

from msgspec import Struct

from iotistica.errors import Superseded, Unavailable
from iotistica.instruments import TASK_SUCCESS
from iotistica.process_health import ProcessHealth, TaskHealth
from iotistica.supervise import Group, sleep

OVERDUE_SECONDS: Final = 900.0  # seconds without a success after which an alarm names the task
ALARM: Final = "background_tasks"

Item = TypeVar("Item")


class PeriodicTask(Struct, frozen=True):
    """Work that runs again `every` seconds after it ended; it must be safe to repeat after an interruption."""

    name: str
    every: float
    work: Callable[[], Awaitable[object]]


def repeat(task: PeriodicTask, process_health: ProcessHealth, slots: asyncio.Semaphore | None) -> Group:
    """Return a group that repeats the task and records successes; after an error the supervisor restarts it.

    At most as many tasks that share `slots` run at a time as there are slots.
    """
    health = process_health.tasks.setdefault(task.name, TaskHealth(since=time.monotonic()))

    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with slots or asyncio.Semaphore():
                    await task.work()
            except Exception:
                health.failures += 1
                raise
            health.failures, health.since, health.last_success = 0, time.monotonic(), datetime.now(UTC)
            TASK_SUCCESS.set(health.last_success.timestamp(), {"task": task.name})
            await sleep(task.every, stop)

    return run


def raise_alarm(process_health: ProcessHealth) -> None:
    """Raise an alarm that names the tasks without a success for `OVERDUE_SECONDS`; clear it if there are none."""
    now = time.monotonic()
    overdue = sorted(name for name, task in process_health.tasks.items() if now - task.since > OVERDUE_SECONDS)
    process_health.alarms.set(
        ALARM,
        f"background tasks have not succeeded for {OVERDUE_SECONDS / 60:.0f} minutes: {', '.join(overdue)};"
        " the log has their errors"
        if overdue
        else None,
    )


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[object]]) -> None:
    """Do the work for every item, even if the work for an earlier item failed; raises the failures at the end.

    `Unavailable` (a server is unavailable) and `Superseded` (a lost lease) affect every item: they end the loop.
    """
    failures: list[Exception] = []
    for item in items:
        try:
            await work(item)
        except (Unavailable, Superseded):
            raise
        except Exception as exc:  # noqa: BLE001 raised at the end, so that the other items are not starved
            exc.add_note(f"of {item}")
            failures.append(exc)
    if failures:
        raise ExceptionGroup("background work failed", failures)
