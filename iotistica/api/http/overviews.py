"""The state of a tenant in one answer: agents, readings, incidents, ingestion, the disk and the alarms."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from cachetools import TTLCache

from iotistica.domain.ids import TenantId
from iotistica.process_health import ProcessHealth, StorageForecast
from iotistica.storage.agents import presence_counts
from iotistica.storage.agents.presence_counts import PresenceCounts
from iotistica.storage.alerts import incident_counts
from iotistica.storage.alerts.incident_counts import IncidentCounts
from iotistica.storage.delivery import ledger, stream_stats
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

CACHE_SECONDS: Final = 1.5  # seconds for which all who look at a tenant share one overview
TENANTS_LIMIT: Final = 1000  # tenants whose overview is cached
RATE_SECONDS: Final = 10  # seconds over which the rate of readings is taken


class WaitingView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Messages of the tenant that are not stored yet, and dead letters."""

    waiting_messages: int
    parked_messages: int
    spooled_messages: int
    oldest_seconds: float
    dead_letters: int


class Overview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    at: datetime
    status: Literal["ok", "degraded"]
    """`degraded`: messages wait for long, or a process of the platform raises an alarm."""
    agents: PresenceCounts
    readings_per_second: float
    """Readings stored, over the last ten seconds."""
    incidents: IncidentCounts
    ingestion: WaitingView
    storage: StorageForecast | None
    """The forecast of the disk; null for a process without the role `background`."""
    alarms: list[str]


class Overviews:
    """Reads overviews; those who ask at the same time share one reading."""

    def __init__(self, redis: Redis, process_health: ProcessHealth) -> None:
        self._redis = redis
        self._process_health = process_health
        self._cache: TTLCache[TenantId, Overview] = TTLCache(TENANTS_LIMIT, CACHE_SECONDS, time.monotonic)
        self._reading: dict[TenantId, asyncio.Task[Overview]] = {}

    async def of_tenant(self, database: Database, tenant: TenantId) -> Overview:
        """Return an overview that is at most `CACHE_SECONDS` old; raises `Unavailable`."""
        cached = self._cache.get(tenant)
        if cached is not None:
            return cached
        task = self._reading.get(tenant)
        if task is None:
            task = asyncio.create_task(self._read(database, tenant), name=f"overview of {tenant}")
            self._reading[tenant] = task
            task.add_done_callback(lambda done: self._keep(tenant, done))
        return await asyncio.shield(task)  # who leaves takes nothing from the others

    def _keep(self, tenant: TenantId, done: asyncio.Task[Overview]) -> None:
        del self._reading[tenant]
        if not done.cancelled() and done.exception() is None:
            self._cache[tenant] = done.result()

    async def encoded(self, database: Database, tenant: TenantId) -> bytes:
        """Return the overview as JSON."""
        return msgspec.json.encode(await self.of_tenant(database, tenant))

    async def _read(self, database: Database, tenant: TenantId) -> Overview:
        async with database.transaction(tenant, snapshot=True) as tx:
            agents = await presence_counts.count(tx, tenant)
            incidents = await incident_counts.count(tx, tenant)
            stored = await ledger.stored_lately(tx, tenant, seconds=RATE_SECONDS)
        (stream,) = await stream_stats.stream_stats(self._redis, [tenant], now=time.time())
        alarms = sorted(self._process_health.alarms.raised)
        is_late = stream.oldest_seconds > stream_stats.LAG_LIMIT or stream.spooled > 0
        return Overview(
            at=datetime.now(UTC),
            status="degraded" if is_late or alarms else "ok",
            agents=agents,
            readings_per_second=round(stored / RATE_SECONDS, 1),
            incidents=incidents,
            ingestion=WaitingView(
                waiting_messages=stream.waiting,
                parked_messages=stream.parked,
                spooled_messages=stream.spooled,
                oldest_seconds=round(stream.oldest_seconds, 1),
                dead_letters=stream.dead,
            ),
            storage=self._process_health.storage[0] if self._process_health.storage else None,
            alarms=alarms,
        )
