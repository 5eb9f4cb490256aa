"""Runs task groups side by side, restarts one that crashes, and ends them all in order on a signal."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from loguru import logger

from iotistica.errors import CannotStart, Superseded, Unavailable
from iotistica.instruments import RESTARTS

Group = Callable[[asyncio.Event], Awaitable[None]]
"""Works until the event is set, then finishes what is in flight and returns."""

FIRST_WAIT_SECONDS: Final = 0.4  # seconds before the first restart
LONGEST_WAIT_SECONDS: Final = 1.5  # seconds; what is away is asked only as often as its breaker lets
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEADY_SECONDS: Final = 30.0  # seconds of work after which a crash counts as the first again


async def run(groups: Mapping[str, Group], *, drain_seconds: float, stop: asyncio.Event | None = None) -> bool:
    """Run the groups until a signal, `stop` or a group that cannot start; whether to start anew (SIGUSR2).

    A group that raises `CannotStart` ends them all, and this raises it. Any other error restarts that
    group alone, with back-off.
    """
    stop, anew = stop or asyncio.Event(), asyncio.Event()
    _own_signals(stop, anew)
    tasks = {asyncio.create_task(keep(name, group, stop), name=name) for name, group in groups.items()}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not stop.is_set():
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            strays = {task for task in done & tasks if task.cancelled()}
            if not strays:
                break
            for task in strays:  # somebody's cancel that came too late: no reason to stop the others
                name = task.get_name()
                logger.bind(group=name).error("cancelled by nobody we know; starts again")
                tasks -= {task}
                await sleep(FIRST_WAIT_SECONDS, stop)
                tasks |= {asyncio.create_task(keep(name, groups[name], stop), name=name)}
        stop.set()
        logger.info("stopping")
        _, late = await asyncio.wait(tasks, timeout=drain_seconds)
        for task in late:
            logger.bind(group=task.get_name()).warning("did not stop in time; cancelled")
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, CannotStart):
                raise result
    finally:
        stopping.cancel()
    return anew.is_set()


async def keep(name: str, group: Group, stop: asyncio.Event, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
    """Run a group until `stop`, again after each crash; raises `CannotStart`.

    Waits longer after each crash, up to `longest_wait` seconds.
    """
    wait, clock, told = FIRST_WAIT_SECONDS, asyncio.get_running_loop().time, ""
    while not stop.is_set():
        began = clock()
        try:
            await group(stop)
        except Exception as exc:
            cause = _cause(exc)
            if isinstance(cause, CannotStart):
                raise cause from exc
            if isinstance(cause, (Unavailable, Superseded)):
                if str(cause) != told:  # and not at each try of a long outage
                    logger.bind(group=name, error=str(cause)).warning("waits and starts again")
                told = str(cause)
            else:
                logger.bind(group=name).exception("crashed; starts again")
        else:
            if stop.is_set():
                return
            logger.bind(group=name).warning("ended by itself; starts again")
        RESTARTS.add(1, {"group": name})
        if clock() - began > STEADY_SECONDS:
            wait, told = FIRST_WAIT_SECONDS, ""
        await sleep(wait, stop)
        wait = min(wait * 2, longest_wait)


@asynccontextmanager
async def run_beside(name: str, group: Group, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> AsyncIterator[None]:
    """Run a group, again after each crash, for as long as the block lasts."""
    stop = asyncio.Event()
    task = asyncio.create_task(keep(name, group, stop, longest_wait=longest_wait), name=name)
    try:
        yield
    finally:
        stop.set()  # for one whose driver makes an error of its own of the cancel
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _cause(exc: BaseException) -> BaseException:
    """The one error inside a task group's."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep, but no longer than until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def wait_for_any(*events: asyncio.Event, seconds: float | None) -> None:
    """Wait until one of the events is set, and no longer than so many seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _own_signals(stop: asyncio.Event, anew: asyncio.Event) -> None:
    loop, ended = asyncio.get_running_loop(), False

    def end() -> None:  # also of one that is about to start anew
        nonlocal ended
        ended = True
        anew.clear()
        stop.set()

    def restart() -> None:
        if not ended:
            anew.set()
            stop.set()

    for sign in ENDING:
        loop.add_signal_handler(sign, end)
    loop.add_signal_handler(signal.SIGUSR2, restart)
