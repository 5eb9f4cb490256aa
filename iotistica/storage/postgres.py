"""PostgreSQL: a pool, transactions whose errors are ours, rows as structs, migrations."""

import asyncio
import copy
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, Literal, LiteralString, TypeVar
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from iotistica.domain.ids import TenantId
from iotistica.errors import CannotStart, Conflict, Invalid, TooSlow, Unavailable
from iotistica.storage.circuit_breaker import CircuitBreaker

Tx = psycopg.AsyncConnection[TupleRow]
Row = TypeVar("Row")

Role = Literal["iotistica_api", "iotistica_worker"]
"""Neither owns a table. `api` sees the tenant its transaction names and nothing else, `worker` every tenant."""

RESERVED_CONNECTIONS: Final = 2  # connections of a pool that one tenant alone cannot take
POOL_WAIT_SECONDS: Final = 5.0  # seconds to wait for a free connection
PROBE_WAIT_SECONDS: Final = 2.0  # seconds, of one that finds out whether the server is back
CHECK_SECONDS: Final = 3.0  # for a connection to show that it is alive
CONNECT_SECONDS: Final = 5
RECONNECT_SECONDS: Final = 1.5  # of tries further and further apart; then whoever asks makes the next at once
GRACE_SECONDS: Final = 10.0  # seconds that a transaction may take beyond its longest statement
IDLE_IN_TRANSACTION_MS: Final = 10_000  # ms; a hung transaction of ours would stall everybody behind it

SET_TENANT: Final = "SELECT set_config('iotistica.tenant', %(tenant)s, true)"

_SERVER_IS_WELL: Final = (
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""Errors of the same kind as a lost connection that say nothing of the server."""
_CONNECTION_LOST: Final = (
    *(psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout),
    psycopg.errors.IdleInTransactionSessionTimeout,  # we stood still; the server has ended the session
)


class Database:
    """A bounded pool of connections with one purpose."""

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
        """`configure` runs once on each new connection, in a transaction of its own; `role` None is the owner.

        Pools of one server share its `breaker`.
        """
        self.breaker = breaker or CircuitBreaker("postgres")
        self._size = size
        self._share = max(size - RESERVED_CONNECTIONS, 1)
        self._shares: WeakValueDictionary[TenantId, asyncio.Semaphore] = WeakValueDictionary()
        self._in_use: set[Tx] = set()
        self._check: Callable[[Tx], Awaitable[None]] | None = None
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
            check=_check,
            configure=configure,
            reconnect_timeout=RECONNECT_SECONDS,
            kwargs={
                "autocommit": True,
                "application_name": f"iotistica {name}",
                "options": options,
                "connect_timeout": CONNECT_SECONDS,
            },
        )
        self._longest = statement_seconds + GRACE_SECONDS

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    def saturation(self) -> float:
        """Share of the connections in use, 0 to 1."""
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
        self, tenant: TenantId | None = None, *, patience: float = POOL_WAIT_SECONDS, unbounded: bool = False
    ) -> AsyncIterator[Tx]:
        """A transaction that commits at the end of the block; drivers' errors stop at this line.

        The role `api` sees the rows of `tenant` alone, and none without. The tenant is the transaction's, never the
        connection's, which others use after us. Waits `patience` seconds for a connection, and unless `unbounded`
        for the whole little longer than one statement may take: a server that stands still must not hold us.
        """
        try:
            with self.breaker.guard(_is_lost):
                async with (
                    self._turn(tenant, patience),
                    self._connection(patience, None if unbounded else self._longest) as tx,
                    tx.transaction(),
                ):
                    if tenant is not None:
                        await tx.execute(SET_TENANT, {"tenant": tenant})
                    if self._check is not None:
                        await self._check(tx)
                    yield tx
        except psycopg.errors.UniqueViolation as exc:
            raise Conflict from exc
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            if "NUL" in str(exc):
                raise Invalid("text holds no NUL characters") from exc
            # The message alone: its details may show a password's hash.
            raise Invalid(f"the database refuses this: {exc.diag.message_primary or 'bad data'}") from exc
        except psycopg.errors.ProgramLimitExceeded as exc:
            raise Invalid("more than the database can keep in one place") from exc
        except psycopg.errors.QueryCanceled as exc:
            raise TooSlow("the query took too long: ask for a shorter range") from exc
        except _CONNECTION_LOST as exc:
            raise Unavailable(f"PostgreSQL: {str(exc).strip() or type(exc).__name__}") from exc

    @asynccontextmanager
    async def _turn(self, tenant: TenantId | None, patience: float) -> AsyncIterator[None]:
        """Leaves some connections to the others, however long what one tenant asks for takes."""
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
            raise Unavailable("all connections to PostgreSQL that one tenant may have are in use") from None
        try:
            yield
        finally:
            share.release()

    @asynccontextmanager
    async def _connection(self, patience: float, longest: float | None) -> AsyncIterator[Tx]:
        """A connection of the pool for so many seconds; while the server is away nobody waits long for one."""
        if not self.breaker.is_closed:
            patience = min(patience, PROBE_WAIT_SECONDS)
        try:
            connection = await self._pool.getconn(timeout=patience)
        except PoolTimeout:
            if len(self._in_use) >= self._size:  # which says nothing of the server
                raise Unavailable("all connections to PostgreSQL are in use") from None
            raise
        self._in_use.add(connection)
        try:
            with _abort_after(longest, connection):
                yield connection
        finally:
            self._in_use.discard(connection)
            await self._pool.putconn(connection)

    async def listen(self, channel: LiteralString, changed: asyncio.Event) -> None:
        """Set the event at each notification of a channel; ends only by an error or by being cancelled."""
        try:
            async with self._pool.connection() as connection:
                self._in_use.add(connection)
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                try:
                    changed.set()  # something may have happened before we listened
                    async for _ in connection.notifies():
                        changed.set()
                finally:
                    self._in_use.discard(connection)
                    await connection.close()  # a listening connection does not go back to the pool
        except _CONNECTION_LOST as exc:
            raise Unavailable(f"PostgreSQL: {exc}") from exc
        raise Unavailable("PostgreSQL: the listening connection ended")


@contextmanager
def _abort_after(seconds: float | None, connection: Tx) -> Iterator[None]:
    """End the connection under a block that takes longer, which then fails as if the server had ended it.

    To cancel would not do: the driver then asks the server to cancel, and waits for its answer.
    """
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, _abort, connection)
    try:
        yield
    finally:
        timer.cancel()


def _abort(connection: Tx) -> None:
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as handle, suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


async def _check(connection: Tx) -> None:
    """Whether a connection of the pool is alive; a server that stands still is not."""
    with _abort_after(CHECK_SECONDS, connection):
        await AsyncConnectionPool.check_connection(connection)


def is_database_error(exc: Exception) -> bool:
    """Whether it says that a statement, a right or the schema is wrong, and nothing of what was to be stored."""
    return isinstance(exc, psycopg.Error)


def _is_lost(exc: Exception) -> bool:
    return isinstance(exc, _CONNECTION_LOST) and not isinstance(exc, _SERVER_IS_WELL)


async def fetch_rows(
    tx: Tx,
    row: type[Row],
    statement: LiteralString,
    parameters: Mapping[str, Any] | None = None,
    *,
    prepare: bool | None = None,
) -> list[Row]:
    """Run a statement and validate each row as a struct (`class_row` would not).

    One over readings is not to be prepared (`prepare=False`): a plan that is made for any time opens and locks
    every partition.
    """
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters, prepare=prepare)
        return msgspec.convert(await cursor.fetchall(), list[row], strict=False)  # type: ignore[valid-type]


async def fetch_row(
    tx: Tx, row: type[Row], statement: LiteralString, parameters: Mapping[str, Any] | None = None
) -> Row | None:
    """The first row, or None."""
    rows = await fetch_rows(tx, row, statement, parameters)
    return rows[0] if rows else None


def allow_role_logins(url: str, passwords: Mapping[Role, str]) -> None:
    """Let the roles log in by themselves, where the owner may say so; raises `CannotStart`.

    A connection that logged in as one of them has no way back to the owner, as one with `SET ROLE` has.
    """
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            for role, password in passwords.items():
                statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))
    except psycopg.Error as exc:
        raise CannotStart(f"cannot let the roles of the application in: {str(exc).strip()}") from exc


def url_for_role(url: str, role: Role, password: str) -> str:
    """The URL of the same database for another user."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{quote(password, safe='')}@{address}").geturl()
