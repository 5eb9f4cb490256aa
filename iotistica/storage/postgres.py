"""PostgreSQL: the connection pool, transactions that translate the driver's errors, and rows as structs."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, LiteralString, TypeVar
from weakref import WeakValueDictionary

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, TooSlow, Unavailable
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.connections import PooledConnection, Tx, abort_after, live_connection

__all__ = ("Database", "Page", "Role", "Tx", "fetch_page", "fetch_row", "fetch_rows", "is_database_error")

Row = TypeVar("Row")

Role = Literal["iotistica_api", "iotistica_worker"]
"""Neither role owns a table. `api` sees only the tenant set in its transaction, `worker` sees every tenant."""

RESERVED_CONNECTIONS: Final = 2  # connections of a pool that a single tenant cannot use
POOL_WAIT_SECONDS: Final = 5.0  # seconds to wait for a free connection
PROBE_WAIT_SECONDS: Final = 2.0  # seconds to wait for a connection while the breaker is not closed
CONNECT_SECONDS: Final = 5  # seconds to open a connection
RECONNECT_SECONDS: Final = 1.5  # seconds of retries with back-off; after that, the next caller tries at once
GRACE_SECONDS: Final = 10.0  # seconds that a transaction can last longer than its longest statement
IDLE_IN_TRANSACTION_MS: Final = 10_000  # ms; a hung transaction would block all others that wait for its locks

SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
SET_TENANT: Final = "SELECT set_config('iotistica.tenant', %(tenant)s, true)"

_SERVER_IS_HEALTHY: Final = (
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""Subclasses of `OperationalError` that do not mean that the server is unavailable."""
_CONNECTION_LOST: Final = (
    *(psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout),
    psycopg.errors.IdleInTransactionSessionTimeout,  # this process stalled, and the server ended the session
)


class Database:
    """A bounded pool of connections for one purpose."""

    def __init__(
        self,
        url: str,
        *,
        size: int,
        name: str,
        role: Role | None,
        statement_seconds: float,
        configure: Callable[[Tx], Awaitable[None]] | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """`configure` runs once on each new connection, in a separate transaction; `role` None is the owner.

        Pools of the same server share its `breaker`.
        """
        self.breaker = breaker or CircuitBreaker("postgres")
        self._size = size
        self._share = max(size - RESERVED_CONNECTIONS, 1)
        self._shares: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()
        self._in_use: set[Tx] = set()
        self._check: Callable[[Tx], Awaitable[None]] | None = None
        self._failure = ""  # why the last connection could not be opened; the pool itself says only that it waited
        options = (
            f"-c statement_timeout={int(statement_seconds * 1000)}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC"
        )
        if role is not None:
            options += f" -c role={role}"
        self._pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=POOL_WAIT_SECONDS,
            open=False,
            name=name,
            configure=configure,
            reconnect_timeout=RECONNECT_SECONDS,
            connection_class=PooledConnection,
            kwargs={
                "on_failure": self._note_failure,
                "autocommit": True,
                "application_name": f"iotistica {name}",
                "options": options,
                "connect_timeout": CONNECT_SECONDS,
            },
        )
        self._longest = statement_seconds + GRACE_SECONDS

    def _note_failure(self, exc: psycopg.Error) -> None:
        self._failure = str(exc).strip()

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    def saturation(self) -> float:
        """Return the share of the connections that are in use, from 0 to 1."""
        stats = self._pool.get_stats()
        size = stats.get("pool_max", 1)
        return 1 - stats.get("pool_available", 0) / size if stats.get("pool_size", 0) >= size else 0.0

    def with_check(self, check: Callable[[Tx], Awaitable[None]]) -> "Database":
        """The same pool, where every transaction begins with `check` and does nothing if that raises."""
        view = copy.copy(self)
        view._check = check
        return view

    @asynccontextmanager
    async def transaction(
        self,
        tenant: TenantId | None = None,
        *,
        patience: float = POOL_WAIT_SECONDS,
        unbounded: bool = False,
        snapshot: bool = False,
    ) -> AsyncIterator[Tx]:
        """Open a transaction that commits at the end of the block; translates the driver's errors.

        The role `api` sees only the rows of `tenant`, and none without a tenant. The tenant is set for the
        transaction and not for the connection, which other callers use later. Waits `patience` seconds for a
        connection. Unless `unbounded`, the block can last `GRACE_SECONDS` longer than one statement, so that a
        stalled server does not block the caller. With `snapshot`, all statements read the database as it was at one
        moment and write nothing, for an answer that is made of several statements.
        """
        try:
            with self.breaker.guard(_is_lost):
                async with (
                    self._tenant_share(tenant, patience),
                    self._connection(patience, None if unbounded else self._longest) as tx,
                    tx.transaction(),
                ):
                    if snapshot:
                        await tx.execute(SNAPSHOT)
                    if tenant is not None:
                        await tx.execute(SET_TENANT, {"tenant": tenant})
                    if self._check is not None:
                        await self._check(tx)
                    yield tx
        except psycopg.errors.UniqueViolation as exc:
            raise Conflict from exc
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            if "NUL" in str(exc):
                raise Invalid("Text must not contain NUL characters.") from exc
            # Only the primary message, because the details can contain a password hash.
            raise Invalid(f"The database rejects this value: {exc.diag.message_primary or 'bad data'}") from exc
        except psycopg.errors.ProgramLimitExceeded as exc:
            raise Invalid("A value is larger than the database can store.") from exc
        except psycopg.errors.QueryCanceled as exc:
            raise TooSlow("The query took too long. Request a shorter range.") from exc
        except _CONNECTION_LOST as exc:
            raise Unavailable(f"PostgreSQL: {str(exc).strip() or type(exc).__name__}") from exc

    @asynccontextmanager
    async def _tenant_share(self, tenant: TenantId | None, patience: float) -> AsyncIterator[None]:
        """Limit the connections of one tenant, so that its slow queries leave connections to the other tenants."""
        if tenant is None:
            yield
            return
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = asyncio.Semaphore(self._share)
        try:
            async with asyncio.timeout(patience):
                await share.acquire()
        except TimeoutError:
            raise Unavailable("All connections to PostgreSQL that one tenant can use are busy.") from None
        try:
            yield
        finally:
            share.release()

    @asynccontextmanager
    async def _connection(self, patience: float, longest: float | None) -> AsyncIterator[Tx]:
        """Lend a connection of the pool for `longest` seconds; the wait is short unless the breaker is closed."""
        if not self.breaker.is_closed:
            patience = min(patience, PROBE_WAIT_SECONDS)
        try:
            connection = await live_connection(self._pool, patience)
        except PoolTimeout:
            if len(self._in_use) >= self._size:  # the server can be healthy
                raise Unavailable("All connections to PostgreSQL are busy.") from None
            raise psycopg.OperationalError(self._failure or "it does not answer") from None
        self._failure = ""
        self._in_use.add(connection)
        try:
            with abort_after(longest, connection):
                yield connection
        finally:
            self._in_use.discard(connection)
            await self._pool.putconn(connection)

    async def listen(self, channel: LiteralString, changed: asyncio.Event) -> None:
        """Set the event at each notification of a channel; ends only with an error or when cancelled."""
        try:
            async with self._connection(POOL_WAIT_SECONDS, None) as connection:
                try:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    changed.set()  # a notification can have been sent before LISTEN
                    async for _ in connection.notifies():
                        changed.set()
                finally:
                    await connection.close()  # the pool replaces it, as it must not reuse a listening connection
        except _CONNECTION_LOST as exc:
            raise Unavailable(f"PostgreSQL: {exc}") from exc
        raise Unavailable("PostgreSQL: the listening connection ended")


def is_database_error(exc: Exception) -> bool:
    """Whether the error is one of the driver: a wrong statement, privilege or schema, and not bad data."""
    return isinstance(exc, psycopg.Error)


def _is_lost(exc: Exception) -> bool:
    return isinstance(exc, _CONNECTION_LOST) and not isinstance(exc, _SERVER_IS_HEALTHY)


async def fetch_rows(
    tx: Tx,
    row: type[Row],
    statement: LiteralString,
    parameters: Mapping[str, Any] | None = None,
    *,
    prepare: bool | None = None,
) -> list[Row]:
    """Run a statement and return its rows as validated structs (`class_row` would not validate).

    Statements over readings must not be prepared (`prepare=False`): a plan made for any time opens and locks every
    partition.
    """
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters, prepare=prepare)
        return msgspec.convert(await cursor.fetchall(), list[row], strict=False)  # type: ignore[valid-type]


class Page(list[Row]):
    """The rows of one page of a list."""

    total = 0
    """The number of rows on all pages."""


async def fetch_page(
    tx: Tx, row: type[Row], statement: LiteralString, parameters: Mapping[str, Any], *, cursor: Sequence[str]
) -> Page[Row]:
    """Run a statement that ends with `LIMIT %(limit)s`; return its rows, and how many there are without a limit.

    `cursor` names the parameters that say where the page begins; null is the beginning of the list.
    """
    page = Page(await fetch_rows(tx, row, statement, parameters))
    is_whole = len(page) < parameters["limit"] and all(parameters[name] is None for name in cursor)
    page.total = len(page) if is_whole else await _count(tx, statement, {**parameters, **dict.fromkeys(cursor)})
    return page


async def _count(tx: Tx, statement: LiteralString, parameters: Mapping[str, Any]) -> int:
    counting: LiteralString = "SELECT count(*) FROM (" + statement + ") rows"
    found = await (await tx.execute(counting, {**parameters, "limit": None})).fetchone()
    return int(found[0]) if found else 0


async def fetch_row(
    tx: Tx, row: type[Row], statement: LiteralString, parameters: Mapping[str, Any] | None = None
) -> Row | None:
    """Run a statement and return its first row, or None."""
    rows = await fetch_rows(tx, row, statement, parameters)
    return rows[0] if rows else None
