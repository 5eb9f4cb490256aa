"""The resources that the task groups of a process share: opened once, and closed when the process ends."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from iotistica.disk_space import DiskSpace
from iotistica.domain.agents.broker_passwords import SERVICE_USER, service_password
from iotistica.domain.key_derivation import derive
from iotistica.embedded.servers import Servers
from iotistica.process_health import ProcessHealth
from iotistica.settings import Settings
from iotistica.storage import lease
from iotistica.storage import redis as redis_
from iotistica.storage.agents.directory import Directory
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.spool import Spool
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database, Role
from iotistica.storage.redis import Redis
from iotistica.storage.role_logins import ROLES, allow_role_logins, url_for_role
from iotistica.storage.telemetry import readings

INGEST_SECONDS: Final = 30.0  # longest SQL statement of a worker
API_CONNECTIONS: Final = 10
# In addition to one for each ingest consumer: timed work, lookups of agents, the listener for account changes.
WORKER_CONNECTIONS: Final = 8


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that the task groups of a process share; `servers` is None if no embedded server runs."""

    settings: Settings
    key: bytes
    api: Database
    worker: Database
    redis: Redis
    directory: Directory
    timeline_counts: TimelineCounts
    servers: Servers | None
    listener: socket.socket
    mqtt_url: str
    process_health: ProcessHealth
    disk_space: DiskSpace

    def inbox(self, name: str) -> Inbox:
        """Open the inbox for messages by `name`, http or mqtt, with a separate spool; raises `CannotStart`."""
        spool = Spool(self.settings.spool_path / name, cap=self.settings.spool_mb << 20)
        inbox = Inbox(
            name,
            redis=self.redis,
            directory=self.directory,
            spool=spool,
            high_water_mark=self.settings.stream_mark,
            alarms=self.process_health.alarms,
        )
        self.process_health.inboxes[name] = inbox
        return inbox


@asynccontextmanager
async def open_resources(
    settings: Settings, key: bytes, servers: Servers | None, listener: socket.socket
) -> AsyncIterator[Resources]:
    """Open the resources for these settings, and close them at the end; raises `CannotStart`."""
    urls = servers or settings
    redis = redis_.client(urls.redis_url)
    is_built_in = servers is not None and not settings.database_url
    breaker = CircuitBreaker("postgres")
    api = _database(
        "iotistica_api",
        urls.database_url,
        key if is_built_in else None,
        size=API_CONNECTIONS,
        name="api",
        breaker=breaker,
        statement_seconds=settings.query_seconds,
    )
    worker = _database(
        "iotistica_worker",
        urls.database_url,
        key if is_built_in else None,
        size=settings.profile.most + WORKER_CONNECTIONS,
        name="worker",
        breaker=breaker,
        statement_seconds=INGEST_SECONDS,
        configure=readings.create_staging_table,
    )
    try:
        await api.open()
        await worker.open()
        await redis_.check_configuration(redis)
        if servers is not None and not settings.redis_url:
            await lease.clear_all(redis)
        process_health = ProcessHealth(breakers=[breaker, redis.breaker])
        folder = settings.data_path if is_built_in else None
        yield Resources(
            settings=settings,
            key=key,
            api=api,
            worker=worker,
            redis=redis,
            directory=Directory(worker),
            timeline_counts=TimelineCounts(worker),
            servers=servers,
            listener=listener,
            mqtt_url=_with_account(urls.mqtt_url, key),
            process_health=process_health,
            disk_space=DiskSpace(folder, process_health.alarms, kept=settings.disk_reserve_mb << 20),
        )
    finally:
        await redis.aclose()
        await api.close()
        await worker.close()


def _database(role: Role, url: str, key: bytes | None, **options: Any) -> Database:
    """Return a connection pool for a role.

    With `key`, for the built-in PostgreSQL, it logs in as the role; without, it uses SET ROLE after the login.
    """
    if key is None:
        return Database(url, role=role, **options)
    password = derive(key, "postgres", role).hex()
    return Database(url_for_role(url, role, password), role=None, **options)


def enable_role_logins(url: str, key: bytes) -> None:
    """Allow the platform's roles to log in to the built-in PostgreSQL, with passwords derived from the key."""
    allow_role_logins(url, {role: derive(key, "postgres", role).hex() for role in ROLES})


def _with_account(url: str, key: bytes) -> str:
    """Return the broker's URL; if it has no account, add the intake's, whose password is derived from the key."""
    scheme, sep, rest = url.partition("://")
    if not url or "@" in rest:
        return url
    return f"{scheme}{sep}{SERVICE_USER}:{service_password(key, SERVICE_USER)}@{rest}"
