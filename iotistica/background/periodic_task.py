"""Periodic background work: each task is supervised on its own and watched by name."""

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

OVERDUE_SECONDS: Final = 900.0  # seconds without a success after which a task is an alarm
ALARM: Final = "background_tasks"

Item = TypeVar("Item")


class PeriodicTask(Struct, frozen=True):
    """Work that is repeated `every` so many seconds; work that was interrupted must be safe to repeat."""

    name: str
    every: float
    work: Callable[[], Awaitable[object]]


def repeat(task: PeriodicTask, process_health: ProcessHealth, slots: asyncio.Semaphore | None) -> Group:
    """Return a group that repeats the task and records each success; an error ends it, for the supervisor.

    Tasks that share `slots` run only as many at a time as there are slots.
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
    """Raise an alarm that names the tasks that have not succeeded for `OVERDUE_SECONDS`, or clear it."""
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
    """Do the work for every item, also where that of an earlier item failed; raises the failures at the end.

    A server that is away and a lost lease concern every item: they end the loop at once.
    """
    failures: list[Exception] = []
    for item in items:
        try:
            await work(item)
        except (Unavailable, Superseded):
            raise
        except Exception as exc:  # noqa: BLE001 it is raised at the end: the other items must not starve
            exc.add_note(f"of {item}")
            failures.append(exc)
    if failures:
        raise ExceptionGroup("background work failed", failures)
