"""Several series in one question: chosen by tags, brought to one grid, joined, and turned into rates."""

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, post
from litestar.params import JSONBody
from msgspec import Meta

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry.ranges import QueryRange, of_agents
from iotistica.domain import time_ranges
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry import aggregates as rules
from iotistica.domain.telemetry.counter_rates import RateOptions, rates
from iotistica.domain.telemetry.gap_filling import Fill, fill
from iotistica.domain.telemetry.query_plans import QueryPlan, main_source, plan_query
from iotistica.domain.telemetry.series_merging import Merge, merge
from iotistica.errors import Invalid, TooSlow
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry import aggregates, series_search
from iotistica.storage.telemetry.series_search import TagFilter, TaggedSeries, TagName

SERIES: Final = 200  # of one query
PATIENCE: Final = 8.0  # seconds after which no further statement begins: each may take long by itself
COUNTED: Final = ("last", "first", "max", "min")  # of a counter: a mean over its fall is of nothing
ROWS: Final = 100_000  # values of one answer, all its queries and series together

Text = Annotated[str, Meta(max_length=256)]


class FilterBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["exact", "wildcard", "regexp"] = "exact"
    tagk: TagName
    filter: Text
    group_by: bool = False


class SeriesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`metric` is a series' whole name, or the metric of any device; `downsample` is such as 5m-avg.

    Without one it is 1h; without a function it is avg, of counters last.
    """

    metric: Annotated[str, Meta(min_length=1, max_length=512)]
    agent_uuids: Annotated[list[UUID], Meta(min_length=1, max_length=1000)] | None = None
    aggregator: Merge = "avg"
    downsample: Annotated[str, Meta(max_length=32)] | None = None
    fill: Fill = "none"
    rate: bool = False
    rate_options: RateOptions = RateOptions()
    filters: Annotated[list[FilterBody], Meta(max_length=10)] = []
    percentiles: Annotated[list[Annotated[float, Meta(gt=0, lt=100)]], Meta(max_length=10)] = []


class MultiSeriesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: Annotated[str, Meta(max_length=64)]
    end: Annotated[str, Meta(max_length=64)] | None = None
    tz: Annotated[str, Meta(max_length=64)] | None = None
    queries: Annotated[list[SeriesQuery], Meta(min_length=1, max_length=20)]


class LinePoint(msgspec.Struct, frozen=True):
    time: datetime
    value: float | None


class QueryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One series, or several that were joined: then `agent_uuid` is None unless it is the same."""

    metric: str
    agent_uuid: str | None
    tags: dict[str, str]
    source: str
    dps: list[LinePoint]


class QueryLines(msgspec.Struct, frozen=True, kw_only=True):
    """For each query its lines."""

    query_count: int
    start: datetime
    end: datetime
    results: list[list[QueryLine]]


@post("/query", opt={"permission": "readings.read"}, status_code=200)
async def query(request: ApiRequest, database: DatabaseDep, data: JSONBody[MultiSeriesQuery]) -> QueryLines:
    """Lines of many series on one grid; of a filter with `group_by` those that share the tag become one."""
    tenant = tenant_of(request)
    results: list[list[QueryLine]] = []
    left, until = ROWS, time.monotonic() + PATIENCE
    async with database.transaction(tenant) as tx:
        asked = await of_agents(tx, tenant, None, data.start, data.end, zone=time_ranges.parse_zone(data.tz))
        for at, one in enumerate(data.queries):
            results.append(await _answer(tx, tenant, one, asked, data.tz, f"queries[{at}]", most=left, until=until))
            left -= sum(len(line.dps) for line in results[-1])
    return QueryLines(query_count=len(results), start=asked.start, end=asked.end, results=results)


async def _answer(
    tx: Tx,
    tenant: TenantId,
    one: SeriesQuery,
    asked: QueryRange,
    tz: str | None,
    path: str,
    *,
    most: int,
    until: float,
) -> list[QueryLine]:
    if one.agent_uuids is None and not one.filters:
        raise Invalid("name agents, or a filter", f"{path}.agent_uuids")
    if one.rate and one.percentiles:
        raise Invalid("a rate has no percentiles", f"{path}.percentiles")
    counter = one.rate and one.rate_options.counter
    width, _, name = (one.downsample or "1h").partition("-")
    names = [f"p{fraction:g}" for fraction in one.percentiles] or [name or ("last" if counter else "avg")]
    wanted = [rules.named(found, f"{path}.downsample") for found in names]
    interval = time_ranges.parse_interval(width, f"{path}.downsample")
    if counter and names[0] not in COUNTED:
        raise Invalid(
            f"the rate of a counter is one of {', '.join(COUNTED)}: such as 5m-last", f"{path}.downsample"
        )
    filters = [TagFilter(f.tagk, f.type, f.filter) for f in one.filters]
    _in_time(until)
    series = await series_search.find(
        tx, tenant, one.metric, one.agent_uuids, filters, limit=SERIES + 1, path=f"{path}.filters"
    )
    _in_time(until)
    if len(series) > SERIES:
        raise Invalid(f"more than {SERIES} series: narrow it down", f"{path}.filters")
    if not series:
        return []
    how = plan_query(interval, asked.start, asked.end, wanted, asked.coverage, zone=time_ranges.parse_zone(tz))
    if len(series) * len(wanted) * len(how.grid.starts()) > most:
        raise Invalid(f"more than {ROWS} values: take a longer interval or fewer series", f"{path}.downsample")
    keys = [(found.agent_uuid, found.metric_name) for found in series]
    rows = await aggregates.buckets(tx, tenant, keys, how.grid, how.segments, wanted, limit=ROWS + len(series) * 10)
    points: defaultdict[tuple[int, int], dict[datetime, float | None]] = defaultdict(dict)
    for row in rows:
        for number, value in enumerate(row.values):
            points[row.series, number][row.time] = value
    return [
        _line(one, how, [series[at] for at in group], [points[at, number] for at in group], percentile)
        for group in _groups(one, series)
        for number, percentile in enumerate(one.percentiles or [None])
    ]


def _in_time(until: float) -> None:
    if time.monotonic() > until:
        raise TooSlow("the queries took too long together: ask for fewer at once, or shorter ranges")


def _groups(one: SeriesQuery, series: Sequence[TaggedSeries]) -> list[list[int]]:
    """Numbers of the series that become one line."""
    by = [found.tagk for found in one.filters if found.group_by]
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for at, found in enumerate(series):
        groups[tuple(found.tags.get(tag) for tag in by) if by else at].append(at)
    return list(groups.values())


def _line(
    one: SeriesQuery,
    how: QueryPlan,
    series: Sequence[TaggedSeries],
    points: Sequence[dict[datetime, float | None]],
    percentile: float | None,
) -> QueryLine:
    joined = points[0] if len(points) == 1 else merge(points, one.aggregator)
    line = sorted(joined.items()) if one.fill == "none" else fill(how.grid.starts(), joined, one.fill)
    if one.rate:
        line = rates(line, one.rate_options)
    shared = dict(set.intersection(*(set(found.tags.items()) for found in series)))
    if percentile is not None:
        shared["percentile"] = f"{percentile:g}"
    return QueryLine(
        metric=one.metric,
        agent_uuid=shared.get("agent_uuid"),
        tags=dict(sorted(shared.items())),
        source=main_source(how.segments),
        dps=[LinePoint(time, value) for time, value in line],
    )


router = Router("/readings", route_handlers=[query], tags=["readings"])
