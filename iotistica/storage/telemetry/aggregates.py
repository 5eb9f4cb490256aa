"""Aggregates over rollups and readings together; each part of the range is read from the source that covers it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.aggregates import Aggregate, finish
from iotistica.domain.telemetry.rollup_sources import Source, SourceRange
from iotistica.domain.telemetry.time_grids import Fixed, Grid
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry.rollups import USABLE, square, summand

TABLES: Final[dict[Source, str]] = {
    "raw": "readings",
    "1m": "readings_1m",
    "1h": "readings_1h",
    "daily": "readings_daily",
}


class _Partial(NamedTuple):
    """A partial aggregate.

    `columns` maps a column to its SQL for a single reading, whose usable value is `v`, and its SQL for a rollup.
    `total` is the SQL that combines the rows of a bucket.
    """

    columns: dict[str, tuple[str, str]]
    total: str


_TIME: Final = "CASE WHEN v IS NOT NULL THEN time END"
_PARTIALS: Final[dict[str, _Partial]] = {
    "count": _Partial({"count": ("1", "count")}, "sum(count)::bigint"),
    "n": _Partial({"n": ("(v IS NOT NULL)::int", "n")}, "sum(n)::bigint"),
    # As in the rollups, a sum that a double cannot hold becomes infinite and is never an error.
    "sum": _Partial({"sum": (summand("v"), "sum")}, "sum(sum)"),
    "sum_sq": _Partial({"sum_sq": (square("v"), "sum_sq")}, "sum(sum_sq)"),
    "min": _Partial({"min": ("v", "min")}, "min(min)"),
    "max": _Partial({"max": ("v", "max")}, "max(max)"),
    "first": _Partial(
        {"first": ("v", "first"), "first_time": (_TIME, "first_time")},
        "(array_agg(first ORDER BY first_time) FILTER (WHERE first_time IS NOT NULL))[1]",
    ),
    "last": _Partial(
        {"last": ("v", "last"), "last_time": (_TIME, "last_time")},
        "(array_agg(last ORDER BY last_time DESC) FILTER (WHERE last_time IS NOT NULL))[1]",
    ),
    # A rollup of readings without a usable value has no times except that of its bucket.
    "since": _Partial({"since": ("time", "coalesce(first_time, bucket)")}, "min(since)"),
    "until": _Partial({"until": ("time", "coalesce(last_time, bucket)")}, "max(until)"),
}
# Over raw readings, the standard deviation avoids the loss of digits that sums of squares have.
SPREAD: Final = "stddev_samp(CASE WHEN abs(v) < 1e140 THEN v WHEN v IS NOT NULL THEN 'Infinity' END)"
_V: Final = USABLE.replace("quality", "r.quality").replace("THEN value", "THEN r.value")

ONE: Final = """
FROM agents a JOIN {table} r USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.metric_name = %(metric)s
"""
MANY: Final = """
FROM unnest(%(agents)s::uuid[], %(metrics)s::text[]) WITH ORDINALITY AS k (agent_uuid, metric_name, number)
JOIN agents a ON a.agent_uuid = k.agent_uuid AND a.tenant_id = %(tenant)s
JOIN {table} r ON r.agent_uuid = k.agent_uuid AND r.metric_name = k.metric_name WHERE true
"""


class Bucket(NamedTuple):
    """A bucket: the index of its series, its start, its number of readings, and one value or None per aggregate."""

    series: int
    time: datetime
    readings: int
    values: tuple[float | None, ...]


async def buckets(
    tx: Tx,
    tenant: TenantId,
    series: Sequence[tuple[UUID, str]],
    grid: Grid,
    segments: Sequence[SourceRange],
    aggregates: Sequence[Aggregate],
    *,
    limit: int,
) -> list[Bucket]:
    """Return the aggregates of each bucket that has readings, ordered by series (its index in `series`) and time.

    `segments` cover the range of the grid. No bucket of the grid may cut a row of their sources.
    """
    needs = [need for aggregate in aggregates for need in aggregate.needs]
    columns = await totals(tx, tenant, series, grid, segments, needs, limit=limit)
    values = zip(*(finish(aggregate, columns) for aggregate in aggregates), strict=True)
    rows = zip(columns["number"], columns["slot"], columns["count"], values, strict=True)
    return [Bucket(*row) for row in rows]


async def totals(
    tx: Tx,
    tenant: TenantId,
    series: Sequence[tuple[UUID, str]],
    grid: Grid,
    segments: Sequence[SourceRange],
    needs: Iterable[str],
    *,
    limit: int,
) -> dict[str, Sequence[Any]]:
    """Return columns with a value per bucket: `number` (index of the series), `slot`, `count` and the `needs`."""
    partials = list(dict.fromkeys(["count", *(need for need in needs if need in _PARTIALS)]))
    fractions = list(dict.fromkeys(need for need in needs if need not in _PARTIALS))
    columns = {need: _PARTIALS[need].total for need in partials}
    columns |= {need: f"percentile_cont({float(need[1:])}) WITHIN GROUP (ORDER BY v)" for need in fractions}
    if "sum_sq" in partials and all(segment.source == "raw" for segment in segments):
        columns["stddev"] = SPREAD
    parameters: dict[str, Any] = {"tenant": tenant, "limit": limit, **_grid_parameters(grid)}
    if len(series) == 1:
        parameters |= {"agent": series[0][0], "metric": series[0][1]}
    else:
        parameters |= {"agents": [key[0] for key in series], "metrics": [key[1] for key in series]}
    parts = []
    for at, segment in enumerate(segments):
        parameters |= {f"start{at}": segment.start, f"end{at}": segment.end}
        parts.append(_select_source(at, segment, partials, grid, many=len(series) != 1))
    columns = {"number": "number", "slot": "slot"} | columns
    statement: Any = (
        f"SELECT {', '.join(columns.values())} FROM ({' UNION ALL '.join(parts)}) p"
        " GROUP BY number, slot ORDER BY number, slot LIMIT %(limit)s"
    )
    rows: list[Any] = []
    if segments:
        async with tx.cursor(binary=True) as cursor:
            await cursor.execute(statement, parameters, prepare=False)
            rows = await cursor.fetchall()
    return dict(zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True))


def _select_source(at: int, segment: SourceRange, partials: Iterable[str], grid: Grid, *, many: bool) -> str:
    """Return the SELECT over one source for its part of the range."""
    raw = segment.source == "raw"
    time = "r.time" if raw else "r.bucket"
    columns = {name: pair for partial in partials for name, pair in _PARTIALS[partial].columns.items()}
    source = (MANY if many else ONE).replace("{table}", TABLES[segment.source])
    source += f" AND {time} >= %(start{at})s AND {time} < %(end{at})s"
    keys = f"SELECT {'k.number::int - 1' if many else '0'} AS number, {_bucket(grid, time)} AS slot"
    if raw:
        selected = ", ".join(f"{of_reading} AS {name}" for name, (of_reading, _) in columns.items())
        return f"SELECT number, slot, {selected}, v FROM ({keys}, r.time, {_V} AS v {source}) q"
    selected = ", ".join(f"{of_rollup} AS {name}" for name, (_, of_rollup) in columns.items())
    return f"{keys}, {selected}, NULL::float8 AS v {source}"


def _bucket(grid: Grid, time: str) -> str:
    if isinstance(grid, Fixed):
        return f"date_bin(make_interval(secs => %(seconds)s), {time}, %(origin)s)"
    return f"(%(labels)s::timestamptz[])[width_bucket({time}, %(edges)s::timestamptz[])]"


def _grid_parameters(grid: Grid) -> dict[str, Any]:
    if isinstance(grid, Fixed):
        return {"seconds": grid.width.total_seconds(), "origin": grid.origin}
    return {"edges": grid.edges, "labels": grid.labels}
