"""The route that queries several series on one time grid: chosen by tags, merged, converted to rates."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from litestar import Router, post
from litestar.params import JSONBody
from msgspec import Meta

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry import series_names
from iotistica.api.telemetry.ranges import QueryRange, of_agents
from iotistica.api.telemetry.series_names import MissingNames
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
from iotistica.storage.telemetry.series_names import known as known_names
from iotistica.storage.telemetry.series_search import TagFilter, TaggedSeries, TagName

SERIES: Final = 200  # series of one query
PATIENCE: Final = 8.0  # seconds after which no further statement starts; each can take long by itself
COUNTED: Final = ("last", "first", "max", "min")  # for counters: a mean across a reset is meaningless
ROWS: Final = 100_000  # values of one answer, over all its queries and series

Text = Annotated[str, Meta(max_length=256)]


class FilterBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["exact", "wildcard", "regexp"] = "exact"
    tagk: TagName
    filter: Text
    group_by: bool = False


class SeriesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`metric` is the whole name of a series, or the metric of any device; `downsample` is for example 5m-avg.

    The default interval is 1h. The default function is avg, or last for counters.
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


TimeBody = Annotated[str, Meta(max_length=64)] | float
"""A time as in query parameters, or a JSON number of epoch seconds or milliseconds."""


class MultiSeriesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: TimeBody
    end: TimeBody | None = None
    tz: Annotated[str, Meta(max_length=64)] | None = None
    queries: Annotated[list[SeriesQuery], Meta(min_length=1, max_length=20)]


class LinePoint(msgspec.Struct, frozen=True):
    time: datetime
    value: float | None


class QueryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One series, or several merged ones: then `agent_uuid` is null unless all are of the same agent."""

    metric: str
    agent_uuid: str | None
    tags: dict[str, str]
    source: str
    dps: list[LinePoint]


class UnknownMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that no series has; `query` is the position of its query, from 0."""

    query: int
    metric: str
    nearest: list[str]


class QueryLines(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The lines of each query, in the order of the queries."""

    query_count: int
    start: datetime
    end: datetime
    results: list[list[QueryLine]]
    unknown: list[UnknownMetric] = []
    """Metrics of queries without results that no series has, of any agent of the query."""


@post("/query", opt={"permission": "readings.read"}, status_code=200)
async def query(request: ApiRequest, database: DatabaseDep, data: JSONBody[MultiSeriesQuery]) -> QueryLines:
    """Query many series on one time grid.

    Each query returns one line per series. Series that share the tags of filters with `group_by` are merged into
    one line by `aggregator`.
    """
    tenant = tenant_of(request)
    results: list[list[QueryLine]] = []
    left, until = ROWS, time.monotonic() + PATIENCE
    async with database.transaction(tenant) as tx:
        zone = time_ranges.parse_zone(data.tz)
        query_range = await of_agents(tx, tenant, None, _time_text(data.start), _time_text(data.end), zone=zone)
        for at, spec in enumerate(data.queries):
            results.append(
                await _answer(tx, tenant, spec, query_range, data.tz, f"queries[{at}]", most=left, until=until)
            )
            left -= sum(len(line.dps) for line in results[-1])
        missing = await _missing(tx, tenant, data, results, until)
    unknown = [
        UnknownMetric(query=at, metric=name.metric, nearest=name.nearest)
        for at, name in zip(missing.queries, await series_names.suggest(missing.names), strict=True)
    ]
    return QueryLines(
        query_count=len(results),
        start=query_range.start,
        end=query_range.end,
        results=results,
        unknown=unknown,
    )


class _Missing(NamedTuple):
    """The positions of queries whose metric no series has, and these metrics."""

    queries: list[int]
    names: MissingNames


async def _missing(
    tx: Tx, tenant: TenantId, data: MultiSeriesQuery, results: Sequence[Sequence[QueryLine]], until: float
) -> _Missing:
    queries: list[int] = []
    for at, spec in enumerate(data.queries):
        if results[at] or time.monotonic() > until:
            continue
        spellings = series_names.spellings(spec.metric)
        if not await series_search.find(tx, tenant, spellings, spec.agent_uuids, [], limit=1):
            queries.append(at)
    agents = [spec.agent_uuids for spec in (data.queries[at] for at in queries)]
    every = None if None in agents else sorted({agent for some in agents for agent in some or ()})
    known = await known_names(tx, tenant, every) if queries else []
    return _Missing(queries, MissingNames([data.queries[at].metric for at in queries], known))


def _time_text(when: str | float | None) -> str | None:
    return when if when is None or isinstance(when, str) else repr(when)


async def _answer(
    tx: Tx,
    tenant: TenantId,
    spec: SeriesQuery,
    query_range: QueryRange,
    tz: str | None,
    path: str,
    *,
    most: int,
    until: float,
) -> list[QueryLine]:
    if spec.agent_uuids is None and not spec.filters:
        raise Invalid("must be given if there is no filter", f"{path}.agent_uuids")
    if spec.rate and spec.percentiles:
        raise Invalid("must be empty for a rate", f"{path}.percentiles")
    is_counter = spec.rate and spec.rate_options.counter
    width, _, name = (spec.downsample or "1h").partition("-")
    names = [f"p{fraction:g}" for fraction in spec.percentiles] or [name or ("last" if is_counter else "avg")]
    wanted = [rules.named(found, f"{path}.downsample") for found in names]
    interval = time_ranges.parse_interval(width, f"{path}.downsample")
    if is_counter and names[0] not in COUNTED:
        raise Invalid(
            f"must use one of {', '.join(COUNTED)} for a counter, for example 5m-last", f"{path}.downsample"
        )
    filters = [TagFilter(f.tagk, f.type, f.filter) for f in spec.filters]
    _check_deadline(until)
    series = await series_search.find(
        *(tx, tenant, series_names.spellings(spec.metric), spec.agent_uuids, filters),
        limit=SERIES + 1,
        path=f"{path}.filters",
    )
    _check_deadline(until)
    if len(series) > SERIES:
        raise Invalid(f"must match at most {SERIES} series", f"{path}.filters")
    if not series:
        return []
    plan = plan_query(
        interval, query_range.start, query_range.end, wanted, query_range.coverage, zone=time_ranges.parse_zone(tz)
    )
    if len(series) * len(wanted) * len(plan.grid.starts()) > most:
        raise Invalid(
            f"must yield at most {ROWS} values: use a longer interval or fewer series", f"{path}.downsample"
        )
    keys = [(found.agent_uuid, found.metric_name) for found in series]
    rows = await aggregates.buckets(
        tx, tenant, keys, plan.grid, plan.segments, wanted, limit=ROWS + len(series) * 10
    )
    points: defaultdict[tuple[int, int], dict[datetime, float | None]] = defaultdict(dict)
    for row in rows:
        for number, value in enumerate(row.values):
            points[row.series, number][row.time] = value
    return [
        _line(spec, plan, [series[at] for at in group], [points[at, number] for at in group], percentile)
        for group in _groups(spec, series)
        for number, percentile in enumerate(spec.percentiles or [None])
    ]


def _check_deadline(until: float) -> None:
    if time.monotonic() > until:
        raise TooSlow("The queries took too long together: send fewer at once, or use shorter ranges.")


def _groups(spec: SeriesQuery, series: Sequence[TaggedSeries]) -> list[list[int]]:
    """Return the positions of the series that are merged into each line."""
    by = [filter_.tagk for filter_ in spec.filters if filter_.group_by]
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for at, found in enumerate(series):
        groups[tuple(found.tags.get(tag) for tag in by) if by else at].append(at)
    return list(groups.values())


def _line(
    spec: SeriesQuery,
    plan: QueryPlan,
    series: Sequence[TaggedSeries],
    points: Sequence[dict[datetime, float | None]],
    percentile: float | None,
) -> QueryLine:
    starts = plan.grid.starts()
    lines = [_filled_and_rated(spec, starts, of_series) for of_series in points]
    merged = lines[0] if len(lines) == 1 else merge(lines, spec.aggregator)
    line = sorted(merged.items()) if spec.fill == "none" else [(start, merged.get(start)) for start in starts]
    shared = dict(set.intersection(*(set(found.tags.items()) for found in series)))
    if percentile is not None:
        shared["percentile"] = f"{percentile:g}"
    return QueryLine(
        metric=spec.metric,
        agent_uuid=shared.get("agent_uuid"),
        tags=dict(sorted(shared.items())),
        source=main_source(plan.segments),
        dps=[LinePoint(time, value) for time, value in line],
    )


def _filled_and_rated(
    spec: SeriesQuery, starts: Sequence[datetime], points: Mapping[datetime, float | None]
) -> Mapping[datetime, float | None]:
    """Return one series as it enters the join; a counter's restart shows only here, not in a sum of counters."""
    filled = points if spec.fill == "none" else dict(fill(starts, points, spec.fill))
    return dict(rates(sorted(filled.items()), spec.rate_options)) if spec.rate else filled


router = Router("/readings", route_handlers=[query], tags=["readings"])
