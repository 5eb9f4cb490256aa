"""Runs the readings consumers of a process: as many as the load requires, each restarted when it fails."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from loguru import logger

from iotistica import supervise
from iotistica.domain.delivery.worker_scaling import CHECK_SECONDS, LoadSignals, Profile, ScaleState, next_scale
from iotistica.errors import Unavailable
from iotistica.instruments import LAG_SECONDS, WORKERS
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import stream_stats, streams
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import Group

NO_LOAD: Final = LoadSignals(lag=0.0, saturation=0.0, depth=0.0, memory=0.0)


class WorkerPool:
    """Starts and ends workers according to the load and a scaling profile."""

    def __init__(
        self,
        make_worker: Callable[[int], Group],
        *,
        profile: Profile,
        redis: Redis,
        database: Database,
        directory: Directory,
        high_water_mark: int,
    ) -> None:
        """`make_worker` returns the worker of a number, from 0 on; `high_water_mark` is in entries of a stream."""
        self.profile = profile
        self._make_worker = make_worker
        self._redis = redis
        self._database = database
        self._directory = directory
        self._high_water_mark = high_water_mark
        self._scale = ScaleState(workers=profile.least)
        self._members: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self.signals = NO_LOAD

    @property
    def workers(self) -> int:
        return len(self._members)

    async def run(self, stop: asyncio.Event) -> None:
        """Run as many workers as the scale requires until `stop`; then all finish their current batch."""
        try:
            while not stop.is_set():
                self._match()
                await supervise.sleep(CHECK_SECONDS, stop)
                for task, _ in self._members:
                    if task.done():
                        task.result()  # a worker that cannot start ends the pool
                self._scale = next_scale(self._scale, await self._measure(), self.profile, now=time.monotonic())
        except asyncio.CancelledError:
            for task in (*(task for task, _ in self._members), *self._leaving):
                task.cancel()
            raise
        finally:
            for _, end in self._members:
                end.set()
            await asyncio.gather(*(task for task, _ in self._members), *self._leaving, return_exceptions=True)
            self._members.clear()

    def _match(self) -> None:
        before = len(self._members)
        while len(self._members) < self._scale.workers:
            number, end = len(self._members), asyncio.Event()
            keep = supervise.keep(f"ingest-{number}", self._make_worker(number), end)
            self._members.append((asyncio.create_task(keep, name=f"ingest-{number}"), end))
        while len(self._members) > self._scale.workers:
            task, end = self._members.pop()
            end.set()  # the worker finishes its batch and ends by itself
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        if before != len(self._members):
            logger.bind(workers=len(self._members), lag=round(self.signals.lag, 3)).info("ingest scaled")
        WORKERS.set(len(self._members))

    async def _measure(self) -> LoadSignals:
        """Return the current load; while Redis is unavailable, signals that prevent more workers."""
        try:
            tenants = sorted(await self._directory.tenants())
            oldest, deepest = await stream_stats.lag(self._redis, tenants)
            memory = await streams.memory_share(self._redis)
        except Unavailable:
            # The lag is unknown, but what waited at the last check has waited longer since, so the metric grows.
            self.signals = msgspec.structs.replace(self.signals, lag=self.signals.lag + CHECK_SECONDS)
            LAG_SECONDS.set(self.signals.lag)
            return msgspec.structs.replace(self.signals, saturation=1.0)
        self.signals = LoadSignals(
            lag=max(time.time() - oldest, 0.0),
            saturation=self._database.saturation() if self._database.breaker.is_closed else 1.0,
            depth=deepest / self._high_water_mark,
            memory=memory,
        )
        LAG_SECONDS.set(self.signals.lag)
        return self.signals
