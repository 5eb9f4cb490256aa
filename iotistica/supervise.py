"""Runs task groups side by side, restarts a group that crashes, and stops all groups on a signal."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from loguru import logger

from iotistica.errors import CannotStart, Superseded, Unavailable
from iotistica.instruments import RESTARTS

Group = Callable[[asyncio.Event], Awaitable[None]]
"""A function that works until the event is set, then finishes the work in progress and returns."""

FIRST_WAIT_SECONDS: Final = 0.4  # seconds before the first restart
CANCEL_AGAIN_SECONDS: Final = 5.0  # seconds between two cancellations of a group that does not end
LONGEST_WAIT_SECONDS: Final = 1.5  # between restarts; circuit breakers limit calls to a service that is down
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEADY_SECONDS: Final = 30.0  # seconds of work after which the next crash waits `FIRST_WAIT_SECONDS` again


async def run(groups: Mapping[str, Group], *, drain_seconds: float, stop: asyncio.Event | None = None) -> bool:
    """Run the groups until a signal or `stop`; return whether the process must restart (SIGUSR2).

    If a group raises `CannotStart`, all groups stop and the error is raised here. After any other error only
    that group is restarted, with back-off.
    """
    stop, restart = stop or asyncio.Event(), asyncio.Event()
    _own_signals(stop, restart)
    tasks = {asyncio.create_task(keep(name, group, stop), name=name) for name, group in groups.items()}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not stop.is_set():
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            cancelled = {task for task in done & tasks if task.cancelled()}
            if not cancelled:
                break
            for task in cancelled:  # cancelled by mistake, for example too late: not a reason to stop the others
                name = task.get_name()
                logger.bind(group=name).error("a task group was cancelled unexpectedly and is restarted")
                tasks -= {task}
                await sleep(FIRST_WAIT_SECONDS, stop)
                tasks |= {asyncio.create_task(keep(name, groups[name], stop), name=name)}
        stop.set()
        logger.info("stopping")
        _, late = await asyncio.wait(tasks, timeout=drain_seconds)
        for task in late:
            logger.bind(group=task.get_name()).warning("a task group did not stop in time and was cancelled")
        await _cancel(late)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, CannotStart):
                raise result
    finally:
        stopping.cancel()
    return restart.is_set()


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel the tasks until they end: a driver can turn a cancellation into another error, or swallow it."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_SECONDS)
        for task in tasks:
            everything = sorted(f"{one.get_name()}: {_position(one)}" for one in asyncio.all_tasks())
            logger.bind(group=task.get_name(), tasks=everything[:20]).error(
                "a cancelled task group does not end and is cancelled again"
            )


def _position(task: asyncio.Task[Any]) -> str:
    """Return the file and line of each coroutine that a task waits in, the outermost first."""
    coroutine: Any = task.get_coro()
    places = []
    while frame := getattr(coroutine, "cr_frame", None):
        places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        coroutine = coroutine.cr_await
    return " > ".join(places)


async def keep(name: str, group: Group, stop: asyncio.Event, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
    """Run a group until `stop` is set, and restart it after each crash; raises `CannotStart`.

    Waits longer after each crash, up to `longest_wait` seconds.
    """
    wait, clock, logged = FIRST_WAIT_SECONDS, asyncio.get_running_loop().time, ""
    while not stop.is_set():
        began = clock()
        try:
            await group(stop)
        except Exception as exc:
            cause = _cause(exc)
            if isinstance(cause, CannotStart):
                raise cause from exc
            if isinstance(cause, (Unavailable, Superseded)):
                if str(cause) != logged:  # log once, not at each try of a long outage
                    logger.bind(group=name, error=str(cause)).warning("a task group waits and is restarted")
                logged = str(cause)
            else:
                logger.bind(group=name).exception("a task group crashed and is restarted")
        else:
            if stop.is_set():
                return
            logger.bind(group=name).warning("a task group ended by itself and is restarted")
        RESTARTS.add(1, {"group": name})
        if clock() - began > STEADY_SECONDS:
            wait, logged = FIRST_WAIT_SECONDS, ""
        await sleep(wait, stop)
        wait = min(wait * 2, longest_wait)


@asynccontextmanager
async def run_beside(name: str, group: Group, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> AsyncIterator[None]:
    """Run a group for as long as the block lasts, and restart it after each crash."""
    stop = asyncio.Event()
    task = asyncio.create_task(keep(name, group, stop, longest_wait=longest_wait), name=name)
    try:
        yield
    finally:
        stop.set()  # in case a driver turns the cancellation into another error, so that `keep` would restart
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _cause(exc: BaseException) -> BaseException:
    """Return the only error inside an exception group; the group itself if it has several."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep for so many seconds, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def wait_for_any(*events: asyncio.Event, seconds: float | None) -> None:
    """Wait until one of the events is set, but at most so many seconds (None: without limit)."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _own_signals(stop: asyncio.Event, restart: asyncio.Event) -> None:
    loop, has_ended = asyncio.get_running_loop(), False

    def request_end() -> None:  # this also revokes a restart that was requested before
        nonlocal has_ended
        has_ended = True
        restart.clear()
        stop.set()

    def request_restart() -> None:
        if not has_ended:
            restart.set()
            stop.set()

    for sign in ENDING:
        loop.add_signal_handler(sign, request_end)
    loop.add_signal_handler(signal.SIGUSR2, request_restart)
