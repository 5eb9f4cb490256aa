"""What the groups of one process share, built once and closed at its end."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from iotistica.disk_space import Room
from iotistica.domain.agents.broker_passwords import SERVICE_USER, derive, service_password
from iotistica.embedded.servers import Servers
from iotistica.process_health import Vitals
from iotistica.settings import Settings
from iotistica.storage import lease
from iotistica.storage import redis as redis_
from iotistica.storage.agents.directory import Directory
from iotistica.storage.circuit_breaker import Breaker
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.history.timeline_counts import Tally
from iotistica.storage.postgres import Database, Role, as_role, let_in
from iotistica.storage.redis import Redis
from iotistica.storage.telemetry import readings

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
    tally: Tally
    servers: Servers | None
    listener: socket.socket
    mqtt_url: str
    vitals: Vitals
    room: Room

    def inbox(self, name: str) -> Inbox:
        """The way in for one edge of this process, with a spool of its own; raises `CannotStart`."""
        spool = Spool(self.settings.spool_path / name, cap=self.settings.spool_mb << 20)
        inbox = Inbox(
            name,
            redis=self.redis,
            directory=self.directory,
            spool=spool,
            mark=self.settings.stream_mark,
            alarms=self.vitals.alarms,
        )
        self.vitals.inboxes[name] = inbox
        return inbox


@asynccontextmanager
async def parts_of(
    settings: Settings, key: bytes, servers: Servers | None, listener: socket.socket
) -> AsyncIterator[Parts]:
    """The parts of a process with these settings; raises `CannotStart`."""
    where = servers or settings
    redis = redis_.client(where.redis_url)
    own = servers is not None and not settings.database_url
    breaker = Breaker("postgres")
    api = _database(
        "iotistica_api",
        where.database_url,
        key if own else None,
        size=API_CONNECTIONS,
        name="api",
        breaker=breaker,
        statement_seconds=settings.query_seconds,
    )
    worker = _database(
        "iotistica_worker",
        where.database_url,
        key if own else None,
        size=settings.profile.most + WORKER_CONNECTIONS,
        name="worker",
        breaker=breaker,
        statement_seconds=INGEST_SECONDS,
        configure=readings.prepare,
    )
    try:
        await api.open()
        await worker.open()
        await redis_.check(redis)
        if servers is not None and not settings.redis_url:
            await lease.forget_all(redis)
        vitals = Vitals(breakers=[breaker, redis.breaker])
        folder = settings.data_path if own else None
        yield Parts(
            settings=settings,
            key=key,
            api=api,
            worker=worker,
            redis=redis,
            directory=Directory(worker),
            tally=Tally(worker),
            servers=servers,
            listener=listener,
            mqtt_url=_with_account(where.mqtt_url, key),
            vitals=vitals,
            room=Room(folder, vitals.alarms, kept=settings.disk_reserve_mb << 20),
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


def _with_account(url: str, key: bytes) -> str:
    """The broker's URL; one that names no account gets the intake's, whose password derives from the key."""
    scheme, sep, rest = url.partition("://")
    if not url or "@" in rest:
        return url
    return f"{scheme}{sep}{SERVICE_USER}:{service_password(key, SERVICE_USER)}@{rest}"
