"""The database server that the tests run on: the built-in one, or one that is named, with a fresh database each."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg
from psycopg import sql

from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import readings

VARIABLE: Final = "IOTISTICA_TEST_DATABASE_URL"
"""A user of the server named here needs the right to create databases and roles, and no other."""
_BY_FOLDER: Final[dict[Path, tuple[str, str]]] = {}


def server_url() -> str:
    """Return the URL of the named server; empty if the tests use the built-in one."""
    return os.environ.get(VARIABLE, "")


def has_timescale() -> bool:
    """Whether new databases of the named server get TimescaleDB."""
    with fresh(server_url()) as url, psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute("CREATE EXTENSION timescaledb")
        except psycopg.Error:
            return False
    return True


@contextlib.contextmanager
def fresh(server: str) -> Iterator[str]:
    """Create a database for the block, and drop it afterwards; the URL of it."""
    name = _create(server)
    try:
        yield _named(server, name)
    finally:
        _drop(server, name)


def worker_pool(url: str, *, size: int, statement_seconds: float = 30) -> Database:
    """Return a pool like that of the workers; not open yet."""
    return Database(
        url,
        size=size,
        name="test",
        role="iotistica_worker",
        statement_seconds=statement_seconds,
        configure=readings.create_staging_table,
    )


def of_folder(folder: Path) -> str:
    """Return the URL of the database that belongs to a data folder; created once. Empty for the built-in server."""
    server = server_url()
    if server and folder not in _BY_FOLDER:
        _BY_FOLDER[folder] = server, _create(server)
    return _named(*_BY_FOLDER[folder]) if server else ""


def drop_of_folder(folder: Path) -> None:
    """Drop the database of a data folder, if it has one."""
    if folder in _BY_FOLDER:
        _drop(*_BY_FOLDER.pop(folder))


def _create(server: str) -> str:
    name = f"iotistica_test_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name))
        )
    return name


def _drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _named(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/{name}{'?' + query if query else ''}"
