"""Connections of a pool to PostgreSQL: how one is opened, found alive, and ended when it hangs."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Tx = psycopg.AsyncConnection[TupleRow]

CHECK_SECONDS: Final = 3.0  # seconds for the liveness check of a connection


class PooledConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection of a pool, which reports why it could not be opened."""

    @classmethod
    async def connect(  # type: ignore[override]  # with one more argument
        cls, conninfo: str = "", *, on_failure: Callable[[psycopg.Error], None], **options: Any
    ) -> "PooledConnection":
        try:
            return await super().connect(conninfo, **options)
        except psycopg.Error as exc:
            on_failure(exc)
            raise


@contextmanager
def abort_after(seconds: float | None, connection: Tx) -> Iterator[None]:
    """Shut down the connection of a block that takes longer, which then fails as if the server had ended it.

    Cancelling the task would not work: the driver then requests a cancel from the server and waits for the answer.
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


async def live_connection(pool: AsyncConnectionPool[PooledConnection], patience: float) -> PooledConnection:
    """Take a connection that is alive from a pool, within `patience` seconds; raises `PoolTimeout`.

    Dead ones are returned, and the pool replaces them. The pool's own `check` pauses for seconds after each of
    them: after a restart of the server, the first callers of a pool with many idle connections would get none.
    """
    deadline = time.monotonic() + patience
    while True:
        connection = await pool.getconn(timeout=deadline - time.monotonic())
        try:
            await _check_alive(connection)
        except psycopg.Error:
            await pool.putconn(connection)
        except BaseException:
            await pool.putconn(connection)
            raise
        else:
            return connection


async def _check_alive(connection: Tx) -> None:
    """Raise an error of the driver unless the connection is alive; a stalled server fails the check."""
    with abort_after(CHECK_SECONDS, connection):
        await AsyncConnectionPool.check_connection(connection)
