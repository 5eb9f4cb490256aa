"""The composition root: which roles there are, and how their parts are put together."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from iotistica import instruments, supervise
from iotistica.api import app as http
from iotistica.api import server
from iotistica.api.given import Site
from iotistica.background import retention
from iotistica.domain.accounts import SERVICE_USER, derive, service_password
from iotistica.embedded import mosquitto
from iotistica.embedded.accounts import Accounts
from iotistica.embedded.servers import Servers
from iotistica.errors import CannotStart
from iotistica.ingest.catalogue import Catalogue
from iotistica.ingest.worker import Worker
from iotistica.mqtt import probe
from iotistica.mqtt.intake import Intake
from iotistica.settings import Settings
from iotistica.simulate import demo
from iotistica.storage import lease, readings
from iotistica.storage import redis as redis_
from iotistica.storage.directory import Directory
from iotistica.storage.limits import Limits
from iotistica.storage.postgres import Database, Role, as_role, let_in
from iotistica.storage.redis import Redis
from iotistica.supervise import Group

GROUPS: Final = ("http", "mqtt", "ingest", "background")
ROLES: Final = {
    "api": ("http", "mqtt", "background"),
    "ingest": ("ingest",),
    "http": ("http",),
    "mqtt": ("mqtt",),
    "background": ("background",),
}
INGEST_SECONDS: Final = 30.0  # longest statement of a worker
API_CONNECTIONS: Final = 10
WORKER_CONNECTIONS: Final = 8  # beside the ingest's: timed work, who is who, the renderer that listens


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the groups of one process share."""

    settings: Settings
    key: bytes
    api: Database
    worker: Database
    redis: Redis
    directory: Directory
    servers: Servers | None
    mqtt_url: str


def groups_of(roles: Sequence[str]) -> list[str]:
    """The groups that these roles stand for; none means all. Raises `CannotStart`."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise CannotStart(f"unknown role {unknown[0]!r}; there are {', '.join(ROLES)}")
    wanted = {group for role in roles for group in ROLES[role]} or set(GROUPS)
    return [group for group in GROUPS if group in wanted]


@asynccontextmanager
async def _parts(settings: Settings, key: bytes, servers: Servers | None) -> AsyncIterator[Parts]:
    where = servers or settings
    redis = redis_.client(where.redis_url)
    own = servers is not None and not settings.database_url
    api = _database(
        "iotistica_api",
        where.database_url,
        key if own else None,
        size=API_CONNECTIONS,
        name="api",
        statement_seconds=settings.query_seconds,
    )
    worker = _database(
        "iotistica_worker",
        where.database_url,
        key if own else None,
        size=settings.ingest_workers + WORKER_CONNECTIONS,
        name="worker",
        statement_seconds=INGEST_SECONDS,
        configure=readings.prepare,
    )
    try:
        await api.open()
        await worker.open()
        await redis_.check(redis)
        if servers is not None and not settings.redis_url:
            await lease.forget_all(redis)
        yield Parts(
            settings=settings,
            key=key,
            api=api,
            worker=worker,
            redis=redis,
            directory=Directory(worker),
            servers=servers,
            mqtt_url=_with_account(where.mqtt_url, key),
        )
    finally:
        await redis.aclose()
        await api.close()
        await worker.close()


def _database(role: Role, url: str, key: bytes | None, **options: Any) -> Database:
    """A pool of a role: logged in as it in a PostgreSQL of our own, whose `key` is given, else by SET ROLE."""
    if key is None:
        return Database(url, role=role, **options)
    password = derive(key, "postgres", role).hex()
    return Database(as_role(url, role, password), role=None, **options)


def let_roles_in(url: str, key: bytes) -> None:
    """Let the application's roles log in to a PostgreSQL of our own, by passwords that derive from the key."""
    roles: tuple[Role, ...] = ("iotistica_api", "iotistica_worker")
    let_in(url, {role: derive(key, "postgres", role).hex() for role in roles})


async def serve(
    settings: Settings, roles: Sequence[str], key: bytes, servers: Servers | None, *, with_demo: bool = False
) -> None:
    """Run the groups of these roles until a signal; raises `CannotStart`."""
    instruments.start()
    groups = groups_of(roles)
    async with _parts(settings, key, servers) as parts:
        running: dict[str, Group] = {}
        for group in groups:
            running |= BUILDERS[group](parts, groups)
        if "http" not in groups:
            running["ops"] = _ops(settings, parts.worker, parts.redis, groups)
        if servers is not None:
            running |= _embedded(servers, key, parts.worker)
        if with_demo:
            running["demo"] = await demo.prepare(parts.worker, key, settings, parts.mqtt_url)
        await supervise.run(running, drain_seconds=settings.drain_seconds)


async def broker(settings: Settings, key: bytes, servers: Servers) -> None:
    """Run the broker and give it its accounts until a signal; for its own container, without Redis."""
    instruments.start()
    database = Database(
        settings.database_url, size=4, name="broker", role="iotistica_worker", statement_seconds=INGEST_SECONDS
    )
    await database.open()
    try:
        running = {"ops": _ops(settings, database, None, ["broker"]), **_embedded(servers, key, database)}
        await supervise.run(running, drain_seconds=settings.drain_seconds)
    finally:
        await database.close()


def _http(parts: Parts, groups: list[str]) -> dict[str, Group]:
    settings = parts.settings
    site = Site(settings=settings, key=parts.key, broker=settings.agents_broker())

    async def run(stop: asyncio.Event) -> None:
        app = http.create(database=parts.api, lookups=parts.worker, redis=parts.redis, site=site, roles=groups)
        host, port = settings.listen, settings.http_port
        proxies = settings.trusted_proxies
        await server.serve(app, stop, host=host, port=port, setting="IOTISTICA_HTTP_PORT", proxies=proxies)

    return {"http": run}


def _ops(settings: Settings, lookups: Database, redis: Redis | None, groups: list[str]) -> Group:
    async def run(stop: asyncio.Event) -> None:
        app = http.create_ops(lookups=lookups, redis=redis, roles=groups)
        host, port = settings.listen, settings.ops_port
        await server.serve(app, stop, host=host, port=port, setting="IOTISTICA_OPS_PORT")

    return run


def _mqtt(parts: Parts, _: list[str]) -> dict[str, Group]:
    if not parts.mqtt_url:
        raise CannotStart("there is no broker: set IOTISTICA_MQTT_URL")
    broker = parts.servers.broker if parts.servers is not None else None

    def opened() -> None:
        if broker is not None:
            # Saves our session now: a broker killed before its next save would forget it, and take messages
            # for nobody until we are back.
            broker.signal(signal.SIGUSR1)

    intake = Intake(
        parts.redis, parts.directory, url=parts.mqtt_url, mark=parts.settings.stream_mark, opened=opened
    )

    async def run(stop: asyncio.Event) -> None:
        accounts = [(name, service_password(parts.key, name)) for name in mosquitto.PROBE_USERS]
        await probe.prove_confined(parts.mqtt_url, accounts, ours=broker is not None)
        await intake.run(stop)

    return {"mqtt": run}


def _ingest(parts: Parts, _: list[str]) -> dict[str, Group]:
    catalogue, limits = Catalogue(), Limits(parts.redis)
    # With a Redis that only we use the name lasts, so that what a crash left open is read again at once.
    # Elsewhere two processes must not share one; what they leave is taken over after a minute.
    alone = parts.servers is not None and not parts.settings.redis_url
    host = "worker" if alone else f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    return {
        f"ingest-{number}": Worker(
            f"{host}-{number}",
            redis=parts.redis,
            database=parts.worker,
            directory=parts.directory,
            catalogue=catalogue,
            limits=limits,
            messages=parts.settings.ingest_batch,
            retention_days=parts.settings.retention_days,
        ).run
        for number in range(parts.settings.ingest_workers)
    }


def _background(parts: Parts, _: list[str]) -> dict[str, Group]:
    async def run(stop: asyncio.Event) -> None:
        await retention.run(
            stop,
            redis=parts.redis,
            database=parts.worker,
            directory=parts.directory,
            retention_days=parts.settings.retention_days,
        )

    return {"background": run}


def _embedded(servers: Servers, key: bytes, database: Database) -> dict[str, Group]:
    groups: dict[str, Group] = {"servers": servers.watch}
    if servers.broker is not None and servers.files is not None:
        reload = servers.broker.signal
        groups["accounts"] = Accounts(servers.home, servers.files, key=key, database=database, reload=reload).run
    return groups


def _with_account(url: str, key: bytes) -> str:
    """The broker's URL; one that names no account gets the intake's, whose password derives from the key."""
    scheme, sep, rest = url.partition("://")
    if not url or "@" in rest:
        return url
    return f"{scheme}{sep}{SERVICE_USER}:{service_password(key, SERVICE_USER)}@{rest}"


BUILDERS: Final[dict[str, Callable[[Parts, list[str]], dict[str, Group]]]] = {
    "http": _http,
    "mqtt": _mqtt,
    "ingest": _ingest,
    "background": _background,
}
