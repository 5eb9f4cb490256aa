"""Groups run side by side, and a crash stays where it was."""

import asyncio
import re
from typing import Any

import pytest
from loguru import logger

from iotistica import supervise
from iotistica.errors import CannotStart, Unavailable


async def test_a_group_that_crashes_starts_again_and_leaves_the_others_alone() -> None:
    """Any error of one group restarts that group."""
    stop, starts, calm = asyncio.Event(), 0, 0

    async def crashing(stop: asyncio.Event) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise ValueError("broken")
        if starts == 2:
            raise Unavailable
        stop.set()

    async def steady(stop: asyncio.Event) -> None:
        nonlocal calm
        calm += 1
        await stop.wait()

    await supervise.run({"crashing": crashing, "steady": steady}, drain_seconds=5, stop=stop)
    assert (starts, calm) == (3, 1)


async def test_a_group_that_cannot_start_ends_all() -> None:
    """The others are drained, and the reason is raised."""
    drained = False

    async def hopeless(_: asyncio.Event) -> None:
        raise CannotStart("no such thing")

    async def steady(stop: asyncio.Event) -> None:
        nonlocal drained
        await stop.wait()
        drained = True

    with pytest.raises(CannotStart, match="no such thing"):
        await supervise.run({"hopeless": hopeless, "steady": steady}, drain_seconds=5)
    assert drained


async def test_a_group_that_does_not_stop_is_cancelled() -> None:
    """A stop takes a bounded time."""
    stop = asyncio.Event()
    cancelled = False

    async def deaf(_: asyncio.Event) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    asyncio.get_running_loop().call_later(0.05, stop.set)
    await supervise.run({"deaf": deaf}, drain_seconds=0.05, stop=stop)
    assert cancelled


async def test_a_group_that_swallows_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the log says where each task waits, for whoever has to find out why."""
    monkeypatch.setattr(supervise, "CANCEL_AGAIN_SECONDS", 0.05)
    stop, swallowed, lines = asyncio.Event(), 0, list[Any]()

    async def deaf(_: asyncio.Event) -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(60)

    sink = logger.add(lambda message: lines.append(message.record), level="ERROR")
    asyncio.get_running_loop().call_later(0.05, stop.set)
    async with asyncio.timeout(5):
        await supervise.run({"deaf": deaf}, drain_seconds=0.05, stop=stop)
    logger.remove(sink)
    assert swallowed == 2
    assert lines[0]["extra"]["group"] == "deaf"
    (place,) = [one for one in lines[0]["extra"]["tasks"] if one.startswith("deaf: ")]
    assert re.search(r"supervise.py:\d+ > test_supervise.py:\d+ > tasks.py:\d+", place)


async def test_a_cancel_that_nobody_asked_for_restarts_the_group() -> None:
    """It is no reason to end the others."""
    stop, starts, calm = asyncio.Event(), 0, 0

    async def struck(stop: asyncio.Event) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(5)
        stop.set()

    async def steady(stop: asyncio.Event) -> None:
        nonlocal calm
        calm += 1
        await stop.wait()

    await supervise.run({"struck": struck, "steady": steady}, drain_seconds=5, stop=stop)
    assert (starts, calm) == (2, 1)


async def test_a_group_beside_ends_though_its_driver_swallows_the_cancel() -> None:
    """A driver that makes an error of its own of it, which the group takes for a server that is away."""
    asked = 0

    async def deaf(stop: asyncio.Event) -> None:
        nonlocal asked
        while not stop.is_set():
            asked += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(5):
        async with supervise.run_beside("deaf", deaf):
            await asyncio.sleep(0.05)
    assert asked == 1
