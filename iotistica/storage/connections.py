"""Connections of a pool to PostgreSQL: how one is opened, found alive, and ended when it hangs."""

import asyncio
import os
import socket
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


async def check_alive(connection: Tx) -> None:
    """Check that a connection of the pool is alive; a stalled server fails the check."""
    with abort_after(CHECK_SECONDS, connection):
        await AsyncConnectionPool.check_connection(connection)
