"""Continuous aggregates: the rollups on TimescaleDB, with the same names and columns as the plain tables."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.errors import CannotStart
from iotistica.storage.telemetry.rollups import COLUMNS, DAY, LABELS, USABLE, square, summand

OwnerConnection = psycopg.Connection[Any]


class PolicyAges(NamedTuple):
    """Days for which readings and rollups are kept, and days after which readings are compressed."""

    raw: int
    minutes: int
    hours: int
    compress: int
    refresh: int = 0
    """Days that readings reach back, if less than `raw`; 0 means `raw`."""


NAMES: Final = ("readings_1m", "readings_1h", "readings_daily")
RETENTION_DAYS_MINIMUM: Final = 5  # days that readings must be kept, because a day is rolled up over two days
KEPT_DAYS: Final = 5
"""Days of readings, today included, that a budget cannot drop: a refresh of days needs two whole ones."""
REFRESH: Final = 15  # seconds between refreshes; a late reading reaches its day after three refreshes
STAGGER: Final = 5  # seconds between the first starts; simultaneous ones were seen to deadlock

_V: Final = f"({USABLE})"
_FROM_RAW: Final = {
    "count": "count(*)",
    **{f"{label}_count": f"count(*) FILTER (WHERE quality = '{label}')" for label in LABELS},
    "n": f"count({_V})",
    "sum": f"sum({summand(_V)})",
    "sum_sq": f"sum({square(_V)})",
    "min": f"min({_V})",
    "max": f"max({_V})",
    "first": f"first({_V}, time) FILTER (WHERE {_V} IS NOT NULL)",
    "first_time": f"min(time) FILTER (WHERE {_V} IS NOT NULL)",
    "last": f"last({_V}, time) FILTER (WHERE {_V} IS NOT NULL)",
    "last_time": f"max(time) FILTER (WHERE {_V} IS NOT NULL)",
}
_FROM_ROLLUP: Final = {
    "count": "sum(count)::bigint",
    **{f"{label}_count": f"sum({label}_count)::bigint" for label in LABELS},
    "n": "sum(n)::bigint",
    "sum": "sum(sum)",
    "sum_sq": "sum(sum_sq)",
    "min": "min(min)",
    "max": "max(max)",
    "first": "first(first, bucket) FILTER (WHERE n > 0)",
    "first_time": "min(first_time)",
    "last": "last(last, bucket) FILTER (WHERE n > 0)",
    "last_time": "max(last_time)",
}


def _view(name: str, width: str, source: str, time: str, columns: dict[str, str]) -> str:
    return f"""
CREATE MATERIALIZED VIEW {name}
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT time_bucket('{width}', {time}) AS bucket, agent_uuid, metric_name,
       {", ".join(f"{columns[column]} AS {column}" for column in COLUMNS.split(", "))}
FROM {source} GROUP BY time_bucket('{width}', {time}), agent_uuid, metric_name
WITH NO DATA
"""


VIEWS: Final = {
    "readings_1m": _view("readings_1m", "1 minute", "readings", "time", _FROM_RAW),
    "readings_1h": _view("readings_1h", "1 hour", "readings_1m", "bucket", _FROM_ROLLUP),
    "readings_daily": _view("readings_daily", "1 day", "readings_1h", "bucket", _FROM_ROLLUP),
}
EXISTS: Final = "SELECT to_regclass(%(name)s) IS NOT NULL"
INDEXED: Final = "SELECT materialization_hypertable_schema, materialization_hypertable_name"
OF_VIEW: Final = INDEXED + " FROM timescaledb_information.continuous_aggregates WHERE view_name = %(name)s"


def create_views(connection: OwnerConnection) -> None:
    """Create the missing views; outside a transaction, since their creation cannot be rolled back."""
    for name, view in VIEWS.items():
        if not _fetch_value(connection, EXISTS, {"name": name}):
            connection.execute(view.encode())
        connection.execute(f"GRANT SELECT ON {name} TO iotistica_api, iotistica_worker".encode())


def import_rollups(connection: OwnerConnection, since: datetime, on_progress: Callable[[str], None]) -> None:
    """Copy the plain rollups of times before `since`, and compute the later ones from the readings."""
    for name in NAMES:
        if _fetch_value(connection, EXISTS, {"name": f"{name}_plain"}):
            with connection.transaction():
                _copy_rollup(connection, name, since)
    today = floor(datetime.now(UTC), DAY)
    while since < today:
        until = min(since + timedelta(days=30), today)
        for name in NAMES:
            refresh(connection, name, since, until)
        on_progress(f"rolled up until {until.date()}")
        since = until


def _copy_rollup(connection: OwnerConnection, name: str, since: datetime) -> None:
    schema, table = connection.execute(OF_VIEW, {"name": name}).fetchone() or ("", "")
    columns = sql.SQL("bucket, agent_uuid, metric_name, " + COLUMNS)
    names = {"store": sql.Identifier(schema, table), "plain": sql.Identifier(f"{name}_plain"), "columns": columns}
    bounds = {"since": since}
    # A repeated run deletes what an interrupted one has copied.
    connection.execute(sql.SQL("DELETE FROM {store} WHERE bucket < %(since)s").format(**names), bounds)
    connection.execute(
        sql.SQL("INSERT INTO {store} ({columns}) SELECT {columns} FROM {plain} WHERE bucket < %(since)s").format(
            **names
        ),
        bounds,
    )


def refresh(connection: OwnerConnection, name: str, start: datetime, end: datetime) -> None:
    """Recompute what has changed in a range; where the readings are gone, this would empty the rollup."""
    connection.execute(
        sql.SQL("CALL refresh_continuous_aggregate({}, {}, {})").format(*map(sql.Literal, (name, start, end)))
    )


# How a policy of each kind is added and removed.
_ADD: Final = {
    "policy_retention": "SELECT add_retention_policy({name}, drop_after => {drop_after}::interval)",
    "policy_compression": "SELECT add_compression_policy({name}, compress_after => {compress_after}::interval)",
    "policy_refresh_continuous_aggregate": """
        SELECT add_continuous_aggregate_policy({name}, start_offset => {start_offset}::interval,
            end_offset => {end_offset}::interval, schedule_interval => {every}::interval,
            initial_start => now() + {first}::interval, buckets_per_batch => 1440)""",
}
_REMOVE: Final = {
    "policy_retention": "SELECT remove_retention_policy({name}, if_exists => true)",
    "policy_compression": "SELECT remove_compression_policy({name}, if_exists => true)",
    "policy_refresh_continuous_aggregate": "SELECT remove_continuous_aggregate_policy({name}, if_exists => true)",
}
JOBS: Final = """
SELECT coalesce(c.view_name, j.hypertable_name), j.proc_name, j.config
FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.continuous_aggregates c
    ON c.view_name = j.hypertable_name OR c.materialization_hypertable_name = j.hypertable_name
WHERE j.hypertable_name IS NOT NULL
"""


def policy_settings(ages: PolicyAges) -> dict[tuple[str, str], dict[str, str]]:
    """Return the configuration of every policy by relation and kind.

    A refresh reaches back to one day less than the readings are kept, so that it includes late readings of any age.
    It never reaches further, where it would empty rollups whose readings are gone. For the same reason rollups
    outlive the readings.
    """
    refresh_from = f"{(ages.refresh or ages.raw) - 1} days"
    policies: dict[tuple[str, str], dict[str, str]] = {
        ("readings", "policy_retention"): {"drop_after": f"{ages.raw} days"},
        ("readings", "policy_compression"): {"compress_after": f"{ages.compress} days"},
        ("readings_1m", "policy_retention"): {"drop_after": f"{max(ages.minutes, ages.raw)} days"},
        ("readings_1h", "policy_retention"): {"drop_after": f"{max(ages.hours, ages.raw)} days"},
    }
    # Readings of the last two minutes are not refreshed: see CLOSED_UNTIL in readings.py.
    for name, width in zip(NAMES, ("2 minutes", "1 hour", "1 day"), strict=True):
        policies[name, "policy_refresh_continuous_aggregate"] = {"start_offset": refresh_from, "end_offset": width}
    return policies


def apply_policies(connection: OwnerConnection, ages: PolicyAges) -> None:
    """Set the ages of the policies and check that they are safe together; raises `CannotStart`."""
    if ages.raw < RETENTION_DAYS_MINIMUM:
        raise CannotStart(
            f"IOTISTICA_RETENTION_DAYS must be at least {RETENTION_DAYS_MINIMUM} on TimescaleDB; it is {ages.raw}."
        )
    days_back = _fetch_value(
        connection, "SELECT floor(extract(epoch FROM now() - raw_since) / 86400) FROM rollup_progress"
    )
    # Refreshes never reach back to readings that were dropped because the disk was full.
    ages = ages._replace(refresh=min(ages.raw, int(days_back)))
    current = {(name, kind): config for name, kind, config in connection.execute(JOBS).fetchall()}
    for number, ((name, kind), config) in enumerate(policy_settings(ages).items()):
        if _policy_matches(connection, current.get((name, kind)), config):
            continue
        values = {"name": name, "every": f"{REFRESH} seconds", "first": f"{STAGGER * number} seconds", **config}
        literals = {key: sql.Literal(value) for key, value in values.items()}
        connection.execute(sql.SQL(_REMOVE[kind]).format(**literals))
        connection.execute(sql.SQL(_ADD[kind]).format(**literals))
    connection.execute(b"UPDATE rollup_progress SET compress_days = %(days)s", {"days": ages.compress})
    check_policies(connection)


def _policy_matches(connection: OwnerConnection, current: dict[str, Any] | None, config: dict[str, str]) -> bool:
    return current is not None and all(
        _fetch_value(connection, "SELECT %(a)s::interval = %(b)s::interval", {"a": current.get(key), "b": value})
        for key, value in config.items()
    )


UNSAFE_REFRESH: Final = """
WITH job AS (
    SELECT coalesce(c.view_name, j.hypertable_name) AS name, j.proc_name, j.config
    FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.continuous_aggregates c
        ON c.view_name = j.hypertable_name OR c.materialization_hypertable_name = j.hypertable_name
)
SELECT refresh.name FROM job refresh JOIN job retention
    ON retention.proc_name = 'policy_retention' AND retention.name IN ('readings', 'readings_1m', 'readings_1h')
WHERE refresh.proc_name = 'policy_refresh_continuous_aggregate' AND refresh.name = ANY(%(names)s)
  AND coalesce((refresh.config->>'start_offset')::interval >= (retention.config->>'drop_after')::interval, true)
"""


def check_policies(connection: OwnerConnection) -> None:
    """Raise `CannotStart` if a refresh reaches back to where its source is dropped: that would erase the rollup."""
    name = _fetch_value(connection, UNSAFE_REFRESH, {"names": list(NAMES)})
    if name:
        raise CannotStart(
            f"The refresh policy of {name} reaches further back than the retention of its source, and would erase"
            " the rollup. Remove the policies that you have added."
        )


def _fetch_value(connection: OwnerConnection, statement: str, parameters: dict[str, Any] | None = None) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    return row[0] if row else None
