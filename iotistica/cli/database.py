"""Connects a command to a database: the configured one, the running instance's, or one started for the command."""

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
    """Return the key of IOTISTICA_SECRET_KEY or of the data folder, where it is created only if `make` is set."""
    if settings.secret_key:
        return data_folder.parse_key(settings.secret_key, "IOTISTICA_SECRET_KEY")
    if not make:
        _require_key(settings)
    return data_folder.server_key(settings.data_path)


async def find_tenant(tx: Tx, name: str) -> TenantId:
    """Return the id of the tenant with this name or id; raises `NotFound`."""
    row = await tenants_.find(tx, name)
    if row is None:
        hint = (
            "The first `iotistica serve` creates it."
            if name == "default"
            else "`iotistica tenants list` lists all tenants."
        )
        raise NotFound(f"There is no tenant {name!r}. {hint}")
    return row.tenant_id


def _require_key(settings: Settings) -> None:
    """Raise `NotFound` if the data folder has no key; creating one would hide a wrong IOTISTICA_DATA_DIR."""
    if not (settings.data_path / "server.key").exists():
        raise NotFound(
            f"The data folder {settings.data_path} is empty. Check IOTISTICA_DATA_DIR;"
            " the first `iotistica serve` creates the folder's content."
        )


@contextlib.asynccontextmanager
async def opened(
    url: str,
    role: Role | None = "iotistica_worker",
    *,
    configure: Callable[[Tx], Awaitable[None]] | None = None,
) -> AsyncIterator[Database]:
    """Open a small connection pool for the block.

    With `role` None statements run as the tables' owner; `configure` runs on each new connection.
    """
    database = Database(url, size=2, name="cli", role=role, statement_seconds=30, configure=configure)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def database_url(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """Yield the URL of the configured database, the running instance's, or one started only for this command."""
    if settings.database_url:
        yield settings.database_url
    elif runtime := data_folder.runtime(settings.data_path):
        yield runtime.database_url
    else:
        with servers.running(settings, server_key(settings, make=make), ("postgres", "redis")) as embedded:
            yield embedded.database_url


@contextlib.contextmanager
def redis_url(settings: Settings) -> Iterator[str]:
    """Yield the URL of the configured Redis, the running instance's, or one started only for this command."""
    if settings.redis_url:
        yield settings.redis_url
    elif runtime := data_folder.runtime(settings.data_path):
        yield runtime.redis_url
    else:
        with servers.running(settings, server_key(settings), ("redis",)) as embedded:
            yield embedded.redis_url


@contextlib.contextmanager
def database_and_redis_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the URLs of database and Redis: configured, the running instance's, or started for this command."""
    runtime = data_folder.runtime(settings.data_path)
    if runtime is not None or (settings.database_url and settings.redis_url):
        database = settings.database_url or (runtime.database_url if runtime else "")
        yield database, settings.redis_url or (runtime.redis_url if runtime else "")
        return
    with servers.running(settings, server_key(settings), ("postgres", "redis")) as embedded:
        yield embedded.database_url, embedded.redis_url


def in_database(settings: Settings, work: Callable[[Tx], Awaitable[T]]) -> T:
    """Migrate the schema, run `work` in a transaction, and return its result after the commit."""

    async def inside(url: str) -> T:
        async with opened(url) as database, database.transaction() as tx:
            return await work(tx)

    with database_url(settings) as url:
        schema.migrate(url)
        return run(inside(url))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
