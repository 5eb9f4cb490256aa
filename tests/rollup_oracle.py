"""What rollups and queries must say of given readings, computed here by hand."""

import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry import aggregates as rules
from iotistica.domain.telemetry.query_plans import plan_query
from iotistica.domain.telemetry.readings import Reading
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.domain.telemetry.time_grids import grid
from iotistica.domain.time_ranges import parse_interval
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.telemetry import aggregates, coverage, partitions, readings, rollups
from iotistica.storage.telemetry.readings import AgentCounts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEVELS = {"readings_1m": rollups.MINUTE, "readings_1h": rollups.HOUR, "readings_daily": rollups.DAY}
NAMES = rollups.COLUMNS.split(", ")
ASKED = ["count", "min", "max", "first", "last", "sum"]

Rows = Mapping[tuple[str, datetime], tuple[float | None, str]]
"""Value and quality by metric and time."""


def reading(metric: str, when: datetime, value: float | None, quality: str = "good") -> Reading:
    us = (when - EPOCH) // timedelta(microseconds=1)
    return Reading(us, metric, value, quality, None, "p", None, None, None, None, None, None, metric)


async def store(database: Database, tenant: TenantId, agent: UUID, rows: list[Reading]) -> readings.StoreResult:
    """Store them as ingest does, series included; the first of a key wins."""
    await partitions.create(database, {partitions.day_of(row.time) for row in rows})
    unique = {(row.metric_name, row.time): row for row in reversed(rows)}
    async with database.transaction() as tx:
        await SeriesCache().write_new(tx, {agent: unique.values()}, {agent: tenant})
        return await readings.store(tx, {agent: unique.values()}, {agent: AgentCounts(tenant, len(unique))})


def summed(rows: list[tuple[datetime, float | None, str]]) -> dict[str, Any]:
    """What a rollup must say of these readings."""
    usable = sorted((t, v) for t, v, q in rows if v is not None and q in ("good", "uncertain"))
    values = [v for _, v in usable]
    totals: dict[str, Any] = dict.fromkeys(NAMES) | {"count": len(rows), "n": len(values)}
    totals |= {f"{label}_count": sum(q == label for _, _, q in rows) for label in rollups.LABELS}
    if values:
        totals |= {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}
        totals |= {"first_time": usable[0][0], "last_time": usable[-1][0]}
        huge = [v for v in values if abs(v) >= 1e290]
        totals["sum"] = math.fsum(values) if not huge else sum(math.copysign(math.inf, v) for v in huge)
        totals["sum_sq"] = math.fsum(v * v for v in values) if max(map(abs, values)) < 1e140 else math.inf
    return totals


def same(got: Any, wanted: Any, rows: list[tuple[datetime, float | None, str]]) -> bool:
    """Equal, or as near as a sum of these values can be."""
    if isinstance(wanted, float) and isinstance(got, float):
        scale = math.fsum(abs(v) for _, v, _ in rows if v is not None and abs(v) < 1e290)
        return (
            got == wanted
            or math.isnan(got) == math.isnan(wanted) is True
            or math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9 * scale)
        )
    return bool(got == wanted)


async def check_tables(tx: Tx, agent: UUID, rows: Rows) -> None:
    """Each row below the watermark says what its readings say, and there is no other."""
    at = await rollups.progress(tx)
    for table, width in LEVELS.items():
        wanted: dict[tuple[str, datetime], list[tuple[datetime, float | None, str]]] = defaultdict(list)
        for (metric, when), (value, quality) in rows.items():
            if when < floor(at.rolled_until, width):
                wanted[metric, floor(when, width)].append((when, value, quality))
        cursor = await tx.execute(
            f"SELECT metric_name, bucket, {rollups.COLUMNS} FROM {table} WHERE agent_uuid = %(a)s", {"a": agent}
        )
        got = {row[:2]: dict(zip(NAMES, row[2:], strict=True)) for row in await cursor.fetchall()}
        assert got.keys() == wanted.keys(), table
        for key, of in wanted.items():
            must = summed(of)
            for name in NAMES:
                assert same(got[key][name], must[name], of), (table, key, name, got[key], must)


async def check_query(
    tx: Tx, tenant: TenantId, agent: UUID, metric: str, rows: Rows, width: str, since: datetime, until: datetime
) -> None:
    """The buckets of a range, whatever sources they come from, are those of its readings."""
    asked = [rules.named(name) for name in ASKED]
    store_ = await coverage.of_agent(tx, tenant, agent, since, until)
    assert store_ is not None
    how = plan_query(parse_interval(width), since, until, asked, store_)
    found = await aggregates.buckets(tx, tenant, [(agent, metric)], how.grid, how.segments, asked, limit=20_000)
    wanted = defaultdict(list)
    starts = grid(parse_interval(width), since, until).starts()
    for (name, when), (value, quality) in rows.items():
        if name == metric and since <= when < until:
            wanted[max(s for s in starts if s <= when)].append((when, value, quality))
    assert [bucket.time for bucket in found] == sorted(wanted)
    for bucket in found:
        must = summed(wanted[bucket.time])
        for name, value in zip(ASKED, bucket.values, strict=True):
            expected = float(must[name]) if must[name] is not None and math.isfinite(must[name]) else None
            assert same(value, expected, wanted[bucket.time]), (name, value, expected, how.segments)
