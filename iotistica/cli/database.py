"""How a command reaches the database: the configured, the running instance's, or one started for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import uvloop

from iotistica.domain.ids import TenantId
from iotistica.embedded import data_folder, servers
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.access import tenants as tenants_
from iotistica.storage.postgres import Database, Role, Tx

T = TypeVar("T")


def server_key(settings: Settings, *, make: bool = False) -> bytes:
    """The key of `IOTISTICA_SECRET_KEY`, or of the data folder, where it is made only if it may be."""
    if settings.secret_key:
        return data_folder.parse_key(settings.secret_key, "IOTISTICA_SECRET_KEY")
    if not make:
        _expect(settings)
    return data_folder.server_key(settings.data_path)


async def find_tenant(tx: Tx, name: str) -> TenantId:
    """The tenant of that name or id; raises `NotFound`."""
    found = await tenants_.find(tx, name)
    if found is None:
        hint = (
            "the first `iotistica serve` makes it" if name == "default" else "`iotistica tenants list` shows them"
        )
        raise NotFound(f"there is no tenant {name!r}; {hint}")
    return found.tenant_id


def _expect(settings: Settings) -> None:
    """Raise `NotFound` where nothing was ever served: a command that made a new folder would hide a wrong one."""
    if not (settings.data_path / "server.key").exists():
        raise NotFound(f"there is nothing in {settings.data_path}: is IOTISTICA_DATA_DIR right? `serve` makes it")


@contextlib.asynccontextmanager
async def opened(
    url: str,
    role: Role | None = "iotistica_worker",
    *,
    configure: Callable[[Tx], Awaitable[None]] | None = None,
) -> AsyncIterator[Database]:
    """A small pool for the block; `role` None is the tables' owner, `configure` runs on each new connection."""
    database = Database(url, size=2, name="cli", role=role, statement_seconds=30, configure=configure)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def database_url(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """The configured database, that of the running instance, or one started for this command alone."""
    if settings.database_url:
        yield settings.database_url
    elif found := data_folder.runtime(settings.data_path):
        yield found.database_url
    else:
        with servers.running(settings, server_key(settings, make=make), ("postgres", "redis")) as embedded:
            yield embedded.database_url


@contextlib.contextmanager
def redis_url(settings: Settings) -> Iterator[str]:
    """The configured Redis, that of the running instance, or one started for this command alone."""
    if settings.redis_url:
        yield settings.redis_url
    elif found := data_folder.runtime(settings.data_path):
        yield found.redis_url
    else:
        with servers.running(settings, server_key(settings), ("redis",)) as embedded:
            yield embedded.redis_url


@contextlib.contextmanager
def database_and_redis_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """The URLs of the database and of Redis: configured, of the running instance, or started for this command."""
    found = data_folder.runtime(settings.data_path)
    if found is not None or (settings.database_url and settings.redis_url):
        database = settings.database_url or (found.database_url if found else "")
        yield database, settings.redis_url or (found.redis_url if found else "")
        return
    with servers.running(settings, server_key(settings), ("postgres", "redis")) as embedded:
        yield embedded.database_url, embedded.redis_url


def in_database(settings: Settings, work: Callable[[Tx], Awaitable[T]]) -> T:
    """What `work` returns, once its transaction is committed."""

    async def inside(url: str) -> T:
        async with opened(url) as database, database.transaction() as tx:
            return await work(tx)

    with database_url(settings) as url:
        schema.migrate(url)
        return run(inside(url))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
