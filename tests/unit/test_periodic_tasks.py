"""Periodic tasks run side by side: one that fails starves none, and each is watched by name."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from iotistica.background import periodic_task
from iotistica.background.periodic_task import PeriodicTask, for_each, raise_alarm, repeat
from iotistica.errors import Unavailable
from iotistica.process_health import ProcessHealth
from iotistica.supervise import Group, run_beside


async def test_a_task_that_keeps_failing_starves_none() -> None:
    """The task beside it goes on, its failures are counted, and its last success is none."""
    health, slots, runs = ProcessHealth(breakers=[]), asyncio.Semaphore(1), asyncio.Event()
    count = 0

    async def fail() -> None:
        raise ValueError("broken")

    async def work() -> None:
        nonlocal count
        count += 1
        if count == 5:
            runs.set()

    def group(name: str, what: Callable[[], Awaitable[None]]) -> Group:
        return repeat(PeriodicTask(name, 0.01, what), health, slots)

    async with (
        run_beside("failing", group("failing", fail), longest_wait=0.01),
        run_beside("working", group("working", work), longest_wait=0.01),
    ):
        await asyncio.wait_for(runs.wait(), 15)
    assert health.tasks["failing"].failures >= 1
    assert health.tasks["failing"].last_success is None
    assert health.tasks["working"].failures == 0
    assert health.tasks["working"].last_success is not None


async def test_a_task_without_a_success_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm names it, and is over with its next success."""
    health, done, broken = ProcessHealth(breakers=[]), asyncio.Event(), True
    monkeypatch.setattr(periodic_task, "OVERDUE_SECONDS", 0.0)

    async def work() -> None:
        if broken:
            raise ValueError("broken")
        done.set()

    async with run_beside("flaky", repeat(PeriodicTask("flaky", 0.01, work), health, None), longest_wait=0.01):
        while not health.tasks["flaky"].failures:
            await asyncio.sleep(0.01)
        raise_alarm(health)
        assert "flaky" in health.alarms.raised[periodic_task.ALARM]
        monkeypatch.setattr(periodic_task, "OVERDUE_SECONDS", 900.0)
        broken = False
        await asyncio.wait_for(done.wait(), 15)
        raise_alarm(health)
        assert periodic_task.ALARM not in health.alarms.raised


async def test_every_item_has_its_turn_though_one_fails() -> None:
    """The failure says which item it was; a server that is away ends the loop at once."""
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "b":
            raise ValueError("broken")
        if item == "away":
            raise Unavailable
        done.append(item)

    with pytest.raises(ExceptionGroup) as failed:
        await for_each(["a", "b", "c"], work)
    assert done == ["a", "c"]
    assert failed.value.exceptions[0].__notes__ == ["of b"]
    with pytest.raises(Unavailable):
        await for_each(["d", "away", "e"], work)
    assert done == ["a", "c", "d"]
