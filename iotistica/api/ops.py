"""Health, readiness and metrics of this process; every process serves them."""

import asyncio
import time
from typing import Any

import msgspec
from litestar import MediaType, Response, get
from loguru import logger

from iotistica import __version__, instruments
from iotistica.api.given import Lookups, MaybeStreams, Roles
from iotistica.domain.permissions import PUBLIC
from iotistica.errors import IotisticaError
from iotistica.storage import streams, tenants
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis, ping

LAGGING = 60.0  # seconds a message waits before this is no longer healthy
PATIENCE = 2.0  # seconds for each part to answer


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ok: bool
    error: str | None = None
    saturation: float | None = None


class Lag(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    waiting_messages: int
    oldest_seconds: float
    dead_letters: int


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    status: str
    version: str
    roles: list[str]
    database: Part
    redis: Part | None = None
    lag: Lag | None = None


@get("/health", opt={"permission": PUBLIC}, tags=["ops"])
async def health(lookups: Lookups, redis: MaybeStreams, roles: Roles) -> Health:
    """The state of the database, of Redis and of the streams between them; always 200 while we run."""
    return await _look(lookups, redis, roles)


@get("/ready", opt={"permission": PUBLIC}, tags=["ops"])
async def ready(lookups: Lookups, redis: MaybeStreams, roles: Roles) -> Response[Health]:
    """200 when the database and Redis answer and no message waits for long, else 503."""
    state = await _look(lookups, redis, roles)
    return Response(state, status_code=200 if state.status == "healthy" else 503)


@get("/metrics", opt={"permission": PUBLIC}, tags=["ops"], media_type=MediaType.TEXT)
async def metrics() -> Response[bytes]:
    """Everything counted, in Prometheus text format."""
    return Response(instruments.scrape(), media_type="text/plain; version=0.0.4")


async def _look(database: Database, redis: Redis | None, roles: list[str]) -> Health:
    if redis is None:  # beside the broker
        postgres = await _database(database)
        status = "healthy" if postgres.ok else "degraded"
        return Health(status=status, version=__version__, roles=roles, database=postgres)
    postgres, streams_ = await asyncio.gather(_database(database), _redis(redis))
    lag = None
    if postgres.ok and streams_.ok:
        lag = await _within(_lag(database, redis))
    ok = postgres.ok and streams_.ok and not (isinstance(lag, Lag) and lag.oldest_seconds > LAGGING)
    return Health(
        status="healthy" if ok else "degraded",
        version=__version__,
        roles=roles,
        database=postgres,
        redis=streams_,
        lag=lag if isinstance(lag, Lag) else None,
    )


async def _database(database: Database) -> Part:
    async def ask() -> None:
        async with database.transaction() as tx:
            await tx.execute("SELECT 1")

    error = await _within(ask())
    return Part(ok=error is None, error=error, saturation=round(database.saturation(), 2))


async def _redis(redis: Redis) -> Part:
    error = await _within(ping(redis))
    return Part(ok=error is None, error=error)


async def _lag(database: Database, redis: Redis) -> Lag:
    async with database.transaction() as tx:
        known = await tenants.all_tenants(tx)
    states = await streams.states(redis, [tenant.tenant_id for tenant in known], now=time.time())
    return Lag(
        waiting_messages=sum(state.waiting for state in states),
        oldest_seconds=round(max((state.oldest_seconds for state in states), default=0.0), 3),
        dead_letters=sum(state.dead for state in states),
    )


async def _within(asking: Any) -> Any:
    """The answer, or what went wrong as text."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asking
    except TimeoutError:
        return f"no answer within {PATIENCE} s"
    except IotisticaError as exc:
        logger.bind(error=str(exc)).warning("a part is not well")
        return "it does not answer as it should; the log says more"  # addresses and users are nobody's business


handlers = [health, ready, metrics]
