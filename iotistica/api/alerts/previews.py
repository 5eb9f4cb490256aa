"""Routes that apply an alert rule to history: how often it would have fired, before anybody is woken by it."""

import asyncio
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Router, post
from litestar.params import FromPath, JSONBody

from iotistica.api.alerts.events import Time
from iotistica.api.alerts.rules import RuleBody, checked
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain import time_ranges
from iotistica.domain.alerts import backtests, scopes
from iotistica.domain.alerts.backtests import History, Interval
from iotistica.domain.alerts.conditions import Comparison, LearnedAnomaly
from iotistica.domain.alerts.detector import observe
from iotistica.domain.alerts.detector_state import DetectorState
from iotistica.domain.alerts.rule_states import Samples
from iotistica.domain.alerts.rules import STATE_CONDITIONS, RuleSpec
from iotistica.domain.alerts.scopes import AgentFacts
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry import downsampling
from iotistica.errors import Invalid
from iotistica.storage.alerts import rules, watched_readings, watched_series
from iotistica.storage.alerts.watched_readings import READINGS_LIMIT, SamplesWanted
from iotistica.storage.alerts.watched_series import SeriesRow
from iotistica.storage.postgres import Database

WRITE = {"permission": "alerts.write"}  # who can write rules can try them: it costs a second or so
DEFAULT: Final = timedelta(days=7)
LONGEST: Final = timedelta(days=31)
SERIES_LIMIT: Final = 200  # series that a rule is tried on
GROUP: Final = 10  # series whose readings one statement returns
READINGS_TRIED: Final = 500_000  # readings of all series
INTERVALS_LIMIT: Final = 1000  # intervals that are returned
PLOTS: Final = 5  # series with most firings that are plotted
POINTS: Final = 500  # points of a plot
WARM_UP: Final = timedelta(days=14)  # of readings before the range, from which a learned detector learns
LISTED: Final = 100  # series that are listed


class IntervalView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A time in which an incident would have been open; `end` is null if it still would be."""

    agent_uuid: UUID
    metric_name: str
    start: datetime
    end: datetime | None
    value: float | None


class SeriesCount(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    metric_name: str
    readings: int
    firings: int


class Plot(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Points of a series for a plot: times in ms and values, thinned out so that the shape stays."""

    agent_uuid: UUID
    metric_name: str
    points: list[tuple[int, float]]


class Preview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    start: datetime
    end: datetime
    agents: int
    """Agents in the scope of the rule."""
    series: int
    """Series that the rule would watch; 0 is no mistake: they can come later."""
    series_tried: int
    readings: int
    is_complete: bool
    """Whether all series and readings of the range were tried; otherwise choose a shorter range or scope."""
    firings: int
    intervals: list[IntervalView]
    by_series: list[SeriesCount]
    """The series with most firings first."""
    plots: list[Plot]
    note: str | None


class _Place(msgspec.Struct, frozen=True):
    agent: AgentFacts
    row: SeriesRow


@post("/preview", opt=WRITE, status_code=200)
async def preview_rule(
    request: ApiRequest, data: JSONBody[RuleBody], database: DatabaseDep, start: Time = None, end: Time = None
) -> Preview:
    """Apply a rule that is not stored to the readings of a range, by default of the last 7 days."""
    return await _preview(database, tenant_of(request), checked(data).definition, start, end)


@post("/{rule:uuid}/backtest", opt=WRITE, status_code=200)
async def backtest_rule(
    request: ApiRequest, database: DatabaseDep, rule: FromPath[UUID], start: Time = None, end: Time = None
) -> Preview:
    """Apply a stored rule to the readings of a range, by default of the last 7 days."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        definition = (await rules.get(tx, tenant, rule)).definition
    return await _preview(database, tenant, definition, start, end)


async def _preview(
    database: Database, tenant: TenantId, definition: RuleSpec, start: str | None, end: str | None
) -> Preview:
    now = datetime.now(UTC)
    since, until = time_ranges.parse_range(start, end, now=now, default=DEFAULT)
    if until - since > LONGEST:
        raise Invalid(f"must be at most {LONGEST.days} days before the end", "start")
    is_of_state = isinstance(definition.condition, STATE_CONDITIONS)
    agents, places = await _in_scope(database, tenant, definition)
    tried = [] if is_of_state else places[:SERIES_LIMIT]
    learned_from = since - WARM_UP if isinstance(definition.condition, LearnedAnomaly) else since
    counts: list[SeriesCount] = []
    found: list[tuple[_Place, list[Interval], Samples]] = []
    left = READINGS_TRIED
    for at in range(0, len(tried), GROUP):
        if left <= 0:
            tried = tried[:at]
            break
        group = tried[at : at + GROUP]
        histories = await _read(database, tenant, definition, group, learned_from, min(until, now), left)
        left -= sum(len(history.sent_times) for history in histories)
        results = await asyncio.to_thread(_apply, definition, group, histories, since, min(until, now))
        for place, history, intervals in zip(group, histories, results, strict=True):
            counts.append(_count(place, history, intervals))
            found.append((place, intervals, history.samples))
    found.sort(key=lambda row: -len(row[1]))
    counts.sort(key=lambda row: -row.firings)
    views = [_interval(place, one) for place, all_, _ in found for one in all_]
    views.sort(key=lambda view: view.start)
    return Preview(
        start=since,
        end=until,
        agents=agents,
        series=len(places),
        series_tried=len(tried),
        readings=READINGS_TRIED - left,
        is_complete=left > 0 and len(tried) == len(places),
        firings=len(views),
        intervals=views[:INTERVALS_LIMIT],
        by_series=counts[:LISTED],
        plots=[_plot(place, samples, since) for place, _, samples in found[:PLOTS] if samples.times],
        note="This kind of rule is not about readings; it cannot be applied to history." if is_of_state else None,
    )


async def _in_scope(database: Database, tenant: TenantId, definition: RuleSpec) -> tuple[int, list[_Place]]:
    """Return how many agents are in the scope of a rule, and their series in it."""
    places: list[_Place] = []
    async with database.transaction(tenant) as tx:
        known = {
            agent.agent_uuid: agent
            for agent in await watched_series.agents(tx, [tenant], None)
            if scopes.has_agent(definition.scope, agent)
        }
        async for rows in watched_series.series(tx, [tenant]):
            places += [
                _Place(known[row.agent_uuid], row)
                for row in rows
                if row.agent_uuid in known
                and scopes.has_series(definition.scope, row.metric_name, row.metric, row.device_name)
            ]
    return len(known), places


async def _read(
    database: Database,
    tenant: TenantId,
    definition: RuleSpec,
    group: list[_Place],
    since: datetime,
    until: datetime,
    most: int,
) -> list[History]:
    """Return the readings of some series, and of those that they are compared with."""
    names = [(place.agent.agent_uuid, place.row.metric_name) for place in group]
    others = [_others(definition, place) for place in group]
    wanted = list(dict.fromkeys([*names, *(key for keys in others for key in keys)]))
    read: dict[tuple[UUID, str], tuple[list[int], list[float], list[int], list[str]]] = {
        key: ([], [], [], []) for key in wanted
    }
    after = dict.fromkeys(wanted, int(since.timestamp() * 1e6))
    while after and most > 0:
        keys = list(after)
        async with database.transaction(tenant) as tx:
            wanted_now = [SamplesWanted(*key, after[key], with_qualities=True) for key in keys]
            found = await watched_readings.samples(tx, [tenant], wanted_now, until=until)
        after = {}
        for stored in found:
            key = keys[stored.number]
            times, values, sent_times, qualities = read[key]
            times += stored.times
            values += stored.values
            sent_times += stored.sent_times or []
            qualities += stored.qualities or []
            most -= READINGS_LIMIT if stored.is_cut else len(stored.sent_times or ())
            if stored.is_cut:
                after[key] = stored.newest
    histories = []
    for key, candidates in zip(names, others, strict=True):
        times, values, sent_times, qualities = read[key]
        other = next((read[one] for one in candidates if read[one][0]), ([], [], [], []))
        history = History(Samples(times, values), sent_times, qualities, Samples(other[0], other[1]), ())
        histories.append(history)
    return histories


def _others(definition: RuleSpec, place: _Place) -> list[tuple[UUID, str]]:
    """Return the series that one may be compared with: the metric of its device, or the whole name."""
    condition, device = definition.condition, place.row.device_name
    if not isinstance(condition, Comparison):
        return []
    same_device = [f"{device.replace('.', '_')}.{condition.other}"] if device else []
    return [(place.agent.agent_uuid, name) for name in (*same_device, condition.other)]


def _apply(
    definition: RuleSpec, group: list[_Place], histories: list[History], since: datetime, until: datetime
) -> list[list[Interval]]:
    start, end = int(since.timestamp() * 1e6), int(until.timestamp() * 1e6)
    if isinstance(definition.condition, LearnedAnomaly):
        histories = [_with_verdicts(history) for history in histories]
    return [
        backtests.intervals(
            definition, definition.bounds_for(place.agent, place.row.device_name), history, start, end
        )
        for place, history in zip(group, histories, strict=True)
    ]


def _with_verdicts(history: History) -> History:
    """Return a history with what a detector says that begins at its first reading."""
    state = DetectorState()
    pairs = zip(*history.samples, strict=True)
    return history._replace(verdicts=[observe(state, at / 1e6, value) for at, value in pairs])


def _count(place: _Place, history: History, intervals: list[Interval]) -> SeriesCount:
    return SeriesCount(
        agent_uuid=place.agent.agent_uuid,
        metric_name=place.row.metric_name,
        readings=len(history.sent_times),
        firings=len(intervals),
    )


def _interval(place: _Place, interval: Interval) -> IntervalView:
    return IntervalView(
        agent_uuid=place.agent.agent_uuid,
        metric_name=place.row.metric_name,
        start=datetime.fromtimestamp(interval.start / 1e6, UTC),
        end=None if interval.end is None else datetime.fromtimestamp(interval.end / 1e6, UTC),
        value=interval.value,
    )


def _plot(place: _Place, samples: Samples, since: datetime) -> Plot:
    first = bisect_left(samples.times, int(since.timestamp() * 1e6))
    times, values = [time / 1e3 for time in samples.times[first:]], samples.values[first:]
    kept: Any = range(len(times))
    if len(times) > POINTS:
        kept = downsampling.downsample(times, values, POINTS, "lttb")
    return Plot(
        agent_uuid=place.agent.agent_uuid,
        metric_name=place.row.metric_name,
        points=[(int(times[at]), values[at]) for at in kept],
    )


router = Router("/anomaly/rules", route_handlers=[preview_rule, backtest_rule], tags=["alerts"])
