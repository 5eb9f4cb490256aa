"""Routes for health, readiness and metrics; every process serves them."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import msgspec
from litestar import MediaType, Response, get
from loguru import logger

from iotistica import __version__, instruments
from iotistica.api.http.dependencies import OptionalRedisDep, PlatformDatabaseDep, ProcessHealthDep, RolesDep
from iotistica.domain.access.permissions import PUBLIC
from iotistica.errors import IotisticaError
from iotistica.process_health import ProcessHealth, StorageForecast
from iotistica.storage.access import tenants
from iotistica.storage.delivery import stream_stats
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis, ping

UNREADY_ALARMS = {"intake_paused", "ingest_stopped", "disk_short"}  # messages are not processed
PATIENCE = 2.0  # seconds that each component has to answer


class ComponentHealth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ok: bool
    error: str | None = None
    saturation: float | None = None
    breaker: str | None = None


class SpoolView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A disk queue of this process that holds messages while Redis is unavailable."""

    messages: int
    bytes: int
    cap: int
    error: str | None = None


class WorkersView(msgspec.Struct, frozen=True, kw_only=True):
    """The number of consumers of this process that store readings, and its bounds."""

    running: int
    least: int
    most: int


class Lag(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    waiting_messages: int
    oldest_seconds: float
    dead_letters: int


class TaskView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A periodic background task: when it last succeeded, and how often it has failed since."""

    last_success: datetime | None
    failures: int = 0


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    status: str
    version: str
    roles: list[str]
    database: ComponentHealth
    redis: ComponentHealth | None = None
    broker: ComponentHealth | None = None
    lag: Lag | None = None
    spools: dict[str, SpoolView] = {}
    workers: WorkersView | None = None
    storage: StorageForecast | None = None
    tasks: dict[str, TaskView] = {}
    alarms: dict[str, str] = {}


@get("/health", opt={"permission": PUBLIC}, tags=["ops"])
async def health(
    platform_database: PlatformDatabaseDep,
    redis: OptionalRedisDep,
    roles: RolesDep,
    process_health: ProcessHealthDep,
) -> Health:
    """Return the health of this process, the database, Redis, streams and spools; always 200 while it runs."""
    return await _health(platform_database, redis, roles, process_health)


@get("/ready", opt={"permission": PUBLIC}, tags=["ops"])
async def ready(
    platform_database: PlatformDatabaseDep,
    redis: OptionalRedisDep,
    roles: RolesDep,
    process_health: ProcessHealthDep,
) -> Response[Health]:
    """Answer 200 if the status is healthy, else 503.

    Healthy: the database and Redis answer, the broker is connected, and messages are processed without long waits.
    """
    state = await _health(platform_database, redis, roles, process_health)
    return Response(state, status_code=200 if state.status == "healthy" else 503)


@get("/metrics", opt={"permission": PUBLIC}, tags=["ops"], media_type=MediaType.TEXT)
async def metrics() -> Response[bytes]:
    """Return all metrics of this process in the Prometheus text format."""
    return Response(instruments.scrape(), media_type="text/plain; version=0.0.4")


async def _health(
    database: Database, redis: Redis | None, roles: list[str], process_health: ProcessHealth
) -> Health:
    if redis is None:  # the process that runs beside the broker
        postgres = await _database(database, process_health)
        status = "healthy" if postgres.ok else "degraded"
        return Health(
            status=status, version=__version__, roles=roles, database=postgres, alarms=_alarms(process_health)
        )
    postgres, streams_ = await asyncio.gather(_database(database, process_health), _redis(redis, process_health))
    lag = None
    if postgres.ok and streams_.ok:
        lag = await _within(process_health, "lag", lambda: _lag(database, redis))
    broker = next((breaker for breaker in process_health.breakers if breaker.name == "broker"), None)
    ok = postgres.ok and streams_.ok and not (isinstance(lag, Lag) and lag.oldest_seconds > stream_stats.LAG_LIMIT)
    ok = ok and (broker is None or broker.is_closed) and not process_health.alarms.raised.keys() & UNREADY_ALARMS
    workers = [count() for count in process_health.workers]
    return Health(
        status="healthy" if ok else "degraded",
        version=__version__,
        roles=roles,
        database=postgres,
        redis=streams_,
        broker=ComponentHealth(ok=broker.is_closed, breaker=broker.state) if broker else None,
        lag=lag if isinstance(lag, Lag) else None,
        spools={name: _spool(inbox.spool) for name, inbox in process_health.inboxes.items()},
        workers=WorkersView(running=workers[0][0], least=workers[0][1], most=workers[0][2]) if workers else None,
        storage=process_health.storage[0] if process_health.storage else None,
        tasks={
            name: TaskView(last_success=task.last_success, failures=task.failures)
            for name, task in process_health.tasks.items()
        },
        alarms=_alarms(process_health),
    )


def _spool(spool: Spool) -> SpoolView:
    return SpoolView(messages=spool.messages, bytes=spool.bytes, cap=spool.cap, error=spool.error and "see the log")


def _alarms(process_health: ProcessHealth) -> dict[str, str]:
    return dict.fromkeys(process_health.alarms.raised, "see the log")


async def _database(database: Database, process_health: ProcessHealth) -> ComponentHealth:
    async def query() -> None:
        async with database.transaction() as tx:
            await tx.execute("SELECT 1")

    error = await _within(process_health, "database", query)
    saturation = round(database.saturation(), 2)
    ok = (
        error is None and database.breaker.is_closed
    )  # half open: this query succeeded, but others are still refused
    return ComponentHealth(ok=ok, error=error, saturation=saturation, breaker=database.breaker.state)


async def _redis(redis: Redis, process_health: ProcessHealth) -> ComponentHealth:
    error = await _within(process_health, "redis", lambda: ping(redis))
    ok = error is None and redis.breaker.is_closed
    return ComponentHealth(ok=ok, error=error, breaker=redis.breaker.state)


async def _lag(database: Database, redis: Redis) -> Lag:
    async with database.transaction() as tx:
        all_tenants = await tenants.all_tenants(tx)
    states = await stream_stats.stream_stats(redis, [tenant.tenant_id for tenant in all_tenants], now=time.time())
    return Lag(
        waiting_messages=sum(state.waiting for state in states),
        oldest_seconds=round(max((state.oldest_seconds for state in states), default=0.0), 3),
        dead_letters=sum(state.dead for state in states),
    )


async def _within(process_health: ProcessHealth, part: str, query: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Return the answer of a component, or an error as text.

    At most one query of a component runs at a time: later requests wait for a query that is not answered yet.
    """
    task = process_health.pending_checks.get(part)
    if task is None or task.done():
        task = process_health.pending_checks[part] = asyncio.create_task(query(), name=f"health {part}")
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    if not done:
        return f"no answer within {PATIENCE} s"
    try:
        return task.result()
    except IotisticaError as exc:
        logger.bind(error=str(exc)).debug("a component failed its health check")
        return "does not answer correctly; see the log"  # the error may contain addresses and users


handlers = [health, ready, metrics]
