"""The move from plain PostgreSQL partitions to TimescaleDB, and the ages of TimescaleDB's policies.

Every statement in this file runs as the owner of the tables.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.errors import CannotStart
from iotistica.storage.telemetry import continuous_aggregates
from iotistica.storage.telemetry.continuous_aggregates import PolicyAges
from iotistica.storage.telemetry.rollups import DAY

OwnerConnection = psycopg.Connection[Any]
Progress = Callable[[str], None]
DEFAULT_AGES: Final = PolicyAges(raw=730, minutes=400, hours=3650, compress=7)
"""The ages that apply until the first start, which sets those of the settings."""


AVAILABLE: Final = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
ENGINE: Final = "SELECT engine FROM rollup_progress"
UNFINISHED: Final = "SELECT to_regclass('readings_plain') IS NOT NULL"
OTHER_PROCESSES: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name ~ '^iotistica (api|worker)'
"""

# Replaces the table by a hypertable of the same name. The view depends on the table, so it is created again.
SWAP: Final = """
CREATE TEMP TABLE view_text ON COMMIT DROP AS SELECT pg_get_viewdef('readings_with_series'::regclass) AS text;
DROP VIEW readings_with_series;
ALTER TABLE readings RENAME TO readings_plain;
ALTER INDEX readings_pkey RENAME TO readings_plain_pkey;
CREATE TABLE readings (LIKE readings_plain INCLUDING DEFAULTS, PRIMARY KEY (agent_uuid, metric_name, time));
SELECT create_hypertable('readings', 'time',
    chunk_time_interval => interval '1 day', create_default_indexes => false);
ALTER TABLE readings SET (timescaledb.compress, timescaledb.compress_segmentby = 'agent_uuid, metric_name',
                          timescaledb.compress_orderby = 'time');
GRANT SELECT ON readings TO iotistica_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON readings TO iotistica_worker;
DO $$ BEGIN
    EXECUTE 'CREATE VIEW readings_with_series WITH (security_invoker = true) AS ' || (SELECT text FROM view_text);
END $$;
GRANT SELECT ON readings_with_series TO iotistica_api, iotistica_worker;
"""
KEEP_ROLLUP: Final = (
    "ALTER TABLE {name} RENAME TO {name}_plain; ALTER INDEX {name}_pkey RENAME TO {name}_plain_pkey"
)
FINISH_MOVE: Final = """
DROP TABLE readings_plain;
UPDATE rollup_progress SET engine = 'timescaledb', closed_until = '1900-01-01Z', rolled_until = '2500-01-01Z';
DELETE FROM rollup_marks;
"""
PLAIN_PARTITIONS: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'readings_plain'::regclass ORDER BY c.relname
"""


def _create_extension(url: str) -> str | None:
    """Create the extension over a separate connection; return why that is impossible, or None."""
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True, prepare_threshold=None) as connection:
            if not _fetch_value(connection, AVAILABLE):
                return "This PostgreSQL server does not have TimescaleDB. Install it first."
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except psycopg.Error as exc:  # an extension that is not preloaded ends the connection
        return f"TimescaleDB cannot be used on this server: {' '.join(str(exc).split())}"
    return None


def check_move_finished(connection: OwnerConnection) -> None:
    """Raise `CannotStart` if a move to TimescaleDB was begun and has not finished."""
    if _fetch_value(connection, UNFINISHED):
        raise CannotStart("The move to TimescaleDB has not finished. Run `iotistica timescale` to continue it.")


def adopt_if_available(url: str) -> None:
    """Move a new database to TimescaleDB if the server has it; raises `CannotStart`."""
    if _create_extension(url) is None:
        move(url, DEFAULT_AGES, lambda _: None)


def move(url: str, ages: PolicyAges, on_progress: Progress) -> bool:
    """Move all readings and rollups to TimescaleDB; return False if they are there already. Raises `CannotStart`.

    Each day is copied, counted and dropped in one transaction, so that an interrupted move loses nothing and
    continues where it stopped. `on_progress` is called with a line of progress.
    """
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True, prepare_threshold=None) as connection:
            if _fetch_value(connection, ENGINE) == "timescaledb":
                return False
            if _fetch_value(connection, OTHER_PROCESSES):
                raise CannotStart("The platform is using this database. Stop its processes first; messages wait.")
        if problem := _create_extension(url):
            raise CannotStart(problem)
        # A second connection, because PostgreSQL loads the extension when a connection begins.
        with psycopg.connect(url, connect_timeout=10, autocommit=True, prepare_threshold=None) as connection:
            _move(connection, ages, on_progress)
    except psycopg.Error as exc:
        raise CannotStart(f"Cannot move to TimescaleDB: {str(exc).strip()}") from exc
    return True


def _move(connection: OwnerConnection, ages: PolicyAges, on_progress: Progress) -> None:
    connection.execute("SET timezone = 'UTC'")
    connection.execute("SELECT pg_advisory_lock(67352)")  # two processes can make their first start at once
    if _fetch_value(connection, ENGINE) == "timescaledb":
        return
    if not _fetch_value(connection, UNFINISHED):
        with connection.transaction():
            connection.execute(SWAP)
            for name in continuous_aggregates.NAMES:
                connection.execute(KEEP_ROLLUP.format(name=name).encode())
    parts = [name for (name,) in connection.execute(PLAIN_PARTITIONS).fetchall()]
    for number, name in enumerate(parts):
        _copy(connection, name)
        on_progress(f"{name[-8:]}: day {number + 1} of {len(parts)}")
    continuous_aggregates.create_views(connection)
    first = _fetch_value(connection, FIRST_TIME)
    continuous_aggregates.import_rollups(connection, floor(first or datetime.now(UTC), DAY), on_progress)
    continuous_aggregates.apply_policies(connection, ages)
    with connection.transaction():
        for name in continuous_aggregates.NAMES:
            connection.execute(f"DROP TABLE IF EXISTS {name}_plain".encode())
        connection.execute(FINISH_MOVE)


FIRST_TIME = """
SELECT greatest(r.first, p.raw_since) FROM (SELECT min(time) AS first FROM readings) r, rollup_progress p
WHERE r.first IS NOT NULL
"""


def _copy(connection: OwnerConnection, part: str) -> None:
    with connection.transaction():
        copied = connection.execute(f"INSERT INTO readings SELECT * FROM {part}".encode()).rowcount
        total = _fetch_value(connection, f"SELECT count(*) FROM {part}")
        if copied != total:
            raise CannotStart(f"{copied} of {total} readings of {part} were copied. None of them was dropped.")
        connection.execute(f"DROP TABLE {part}".encode())


def apply_policies(url: str, ages: PolicyAges) -> None:
    """Set the ages of the policies if the engine is TimescaleDB; raises `CannotStart`."""
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True, prepare_threshold=None) as connection:
            check_move_finished(connection)
            if _fetch_value(connection, ENGINE) == "timescaledb":
                continuous_aggregates.apply_policies(connection, ages)
    except psycopg.Error as exc:
        raise CannotStart(f"Cannot set the policies of TimescaleDB: {str(exc).strip()}") from exc


def _fetch_value(connection: OwnerConnection, statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None
