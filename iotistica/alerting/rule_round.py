"""One round of the alert rules: what was stored since the last, what it means, and the incidents it makes."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from iotistica.alerting import (
    catching_up,
    incident_evidence,
    series_evaluation,
    state_evaluation,
    transitions,
    watch_loading,
)
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.detectors import Detectors
from iotistica.alerting.transitions import Outcome, Transition
from iotistica.alerting.turns import Turns
from iotistica.alerting.watch import BACKLOG, Watch
from iotistica.alerting.watched import Holder, WatchedSeries, us
from iotistica.domain.alerts import rule_states as judging
from iotistica.domain.alerts.incidents import Cause
from iotistica.domain.alerts.rule_states import Judged
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts import (
    incident_ends,
    incidents,
    rule_states,
    rules,
    state_findings,
    watched_readings,
    watched_series,
)
from iotistica.storage.alerts.watched_readings import SamplesWanted, StoredSamples
from iotistica.storage.alerts.watched_series import SERIES_PER_READ
from iotistica.storage.delivery import ledger
from iotistica.storage.postgres import Database, Tx

NOT_SEEN: Final = "it was not seen again"
NOT_WATCHED: Final = "it is no longer watched"
SAVE_SECONDS: Final = 5.0  # seconds between saves of what rules remember, if nothing begins or ends
LONGEST_TRANSACTION: Final = timedelta(seconds=60)  # a series is visible that much later than it was first seen


class RuleRounds:
    """Applies the rules of one watch, in one transaction a round: an error undoes the round as a whole."""

    def __init__(
        self,
        database: Database,
        watch: Watch,
        announcer: Announcer,
        alarms: Mapping[str, str],
        xmin: int,
        *,
        judged_at: datetime | None = None,
        only: TenantId | None = None,
    ) -> None:
        """`xmin` is the oldest transaction that was open before the watch was loaded; `only` is its only tenant.

        `judged_at` is when rules were applied last, by whatever process: what was current then still is.
        """
        self._judged_at = judged_at
        self._only = only
        self._database = database
        self._watch = watch
        self._announcer = announcer
        self._alarms = alarms
        self._xmin = xmin
        self._known: dict[int, int] = {}  # rows of the ledger that were read before: their ids and transactions
        self._is_first = True
        self._looked_at: datetime | None = None
        self._saved_at: datetime | None = None
        self._turns = Turns()
        self._detectors = Detectors(watch)

    async def run(self, now: datetime, lagging: Collection[str] = ()) -> list[Outcome]:
        """Run one round, and return the incidents that it opened and resolved.

        Nobody of the `lagging` tenants is called silent.
        """
        self._turns.transitions = []
        current = max(min(self._judged_at or now, now), now - BACKLOG)
        async with self._database.transaction(unbounded=self._is_first) as tx:
            if self._is_first:
                await self._end_unwatched(tx)
            if self._watch.rules:
                await self._follow(tx, now, current)
                await self._judge_absences(tx, now, lagging)
                await self._judge_states(tx, now)
                self._turns.open_waiting(now)
            outcomes = await self._end_expired(tx, now)
            if self._turns.transitions:
                await incident_evidence.add(tx, self._turns.transitions)
                outcomes += await transitions.apply(tx, self._turns.transitions, now)
            if (
                await self._detectors.save(tx, now)
                or self._turns.transitions
                or self._saved_at is None
                or (now - self._saved_at).total_seconds() > SAVE_SECONDS
            ):
                await self._save(tx, now)
            if self._is_first:
                await rules.record_applied(tx, [rule for rule in self._watch.rules if rule.is_new])
        self._is_first = False
        self._watch.forget_previous()
        self._judged_at = now
        async with self._database.transaction() as tx:  # of its own: much to tell must not keep rules from going on
            await self._announcer.run(tx, now)
        return outcomes

    async def save(self, now: datetime, *, is_last: bool = True) -> None:
        """Store what the rules remember; what detectors have learned only if no other watch takes it over."""
        async with self._database.transaction() as tx:
            await self._save(tx, now)
            await self._detectors.save(tx, now, at_once=is_last)

    async def _save(self, tx: Tx, now: datetime) -> None:
        holders = [h for h in (*self._watch.agents.values(), *self._watch.platform.values()) if h.is_dirty]
        await rule_states.save(tx, {holder.subject: holder.packed() for holder in holders})
        for holder in holders:
            holder.is_dirty = False
        if self._only is None:
            await rule_states.record_round(tx, now)
        self._saved_at = now

    async def _follow(self, tx: Tx, now: datetime, current: datetime) -> None:
        """Judge what was stored since the last round at `current`, and the readings whose time has come."""
        xmin = await ledger.xmin(tx)
        ranges = await ledger.stored_since(tx, self._xmin, self._known)
        self._known |= {row.id: row.xid for row in ranges}
        self._known = {id_: xid for id_, xid in self._known.items() if xid >= xmin}
        self._xmin = xmin
        active = {row.agent for row in ranges}
        await self._add_new(tx, {r.agent for r in ranges if r.tenant in self._watch.tenants}, now)
        for row in ranges:
            holder = self._watch.agents.get(row.agent)
            if holder is not None and row.last_time > now:
                self._watch.expect(holder, us(row.last_time))
        active |= self._watch.expected.keys()
        self._watch.expected = {a: until for a, until in self._watch.expected.items() if until > us(now)}
        if self._is_first:
            active |= self._watch.agents.keys()
            self._turns.restore(self._watch)
            every = [(h, series) for h in self._watch.agents.values() for series in h.series.values()]
            await self._detectors.add(tx, every)
        await self._detectors.learn(tx)
        await catching_up.catch_up(tx, self._watch, self._turns, now, current)
        holders = [self._watch.agents[agent] for agent in active if agent in self._watch.agents]
        await self._judge_series(tx, holders, now, current)

    async def _add_new(self, tx: Tx, active: set[UUID], now: datetime) -> None:
        """Watch agents and series that exist since the last round."""
        if not active:
            return
        if unknown := [agent for agent in active if agent not in self._watch.agents]:
            found = await watched_series.agents(tx, self._watch.tenants, unknown)
            await watch_loading.add_agents(tx, self._watch, found)
        since = (self._looked_at or datetime.now(UTC)) - LONGEST_TRANSACTION
        self._looked_at = datetime.now(UTC)
        rows = await watched_series.new_series(tx, self._watch.tenants, since)
        added = self._watch.add_series(rows, now)
        await watch_loading.find_newest(tx, self._watch, added, now)
        await self._detectors.add(tx, added)

    async def _judge_series(self, tx: Tx, holders: Sequence[Holder], now: datetime, current: datetime) -> None:
        """Judge all watched series of these agents; those of one agent together, since rules can compare them."""
        group: list[Holder] = []
        size = 0
        for holder in holders:
            group.append(holder)
            size += len(holder.series)
            if size >= SERIES_PER_READ:
                await self._judge_group(tx, group, now, current)
                group, size = [], 0
                await asyncio.sleep(0)
        await self._judge_group(tx, group, now, current)

    async def _judge_group(self, tx: Tx, holders: Sequence[Holder], now: datetime, current: datetime) -> None:
        places = [(holder, series) for holder in holders for series in holder.series.values()]
        for _, series in places:
            if not series.is_behind:
                series.current = us(current)
            series.is_behind = False
        quiet = [place for place in places if place[1].is_quiet]
        crossed = await self._pass_quiet(tx, quiet, now)
        places = [place for place in places if not place[1].is_quiet] + crossed
        found: dict[int, dict[str, StoredSamples]] = {}
        for stored in await watched_readings.samples(tx, self._watch.tenants, _wanted(places), until=now):
            holder, series = places[stored.number]
            found.setdefault(id(holder), {})[series.metric_name] = stored
        for holder in holders:
            by_name = found.get(id(holder))
            if by_name is None:
                continue
            _keep_together(holder, by_name)
            for name, stored in by_name.items():
                holder.series[name].advance(stored.newest, is_cut=stored.is_cut)
                if stored.is_cut:
                    self._watch.expect(holder, us(now) + 1)  # the rest is judged in the next round
            holder.is_dirty = True
            for series in holder.series.values():
                if series.is_simple and series.metric_name not in by_name:
                    continue
                for rule, _, turn in series_evaluation.judge(
                    *(series, series.rules, by_name.get(series.metric_name), by_name),
                    now=series.current,
                    verdicts=partial(self._detectors.judge, holder),
                ):
                    self._turns.take(holder, series.metric_name, rule, turn, now, {})
            await asyncio.sleep(0)

    async def _pass_quiet(
        self, tx: Tx, places: Sequence[tuple[Holder, WatchedSeries]], now: datetime
    ) -> list[tuple[Holder, WatchedSeries]]:
        """Pass over series whose new values are all within the bounds of their rules; return the others."""
        crossed = []
        for number, newest, low, high in await watched_readings.extremes(
            tx, self._watch.tenants, _wanted(places), until=now
        ):
            holder, series = places[number]
            if low is not None and high is not None and (high > series.highest or low < series.lowest):
                crossed.append((holder, series))
            else:
                series.advance(newest)
                holder.is_dirty = True
        return crossed

    async def _judge_absences(self, tx: Tx, now: datetime, lagging: Collection[str]) -> None:
        """Judge which series are silent; the time in which the platform itself took nothing in does not count."""
        since = await state_findings.platform_since(tx)
        accepting = us(since) if since is not None else us(now)
        for holder, series, rule in self._watch.absences:
            if not series.heard or series.is_behind:
                continue
            silent_since = max(series.heard, accepting) if not rule.state.firing else series.heard
            outcome = judging.judge_absence(silent_since, us(now), hold=rule.hold)
            if outcome is judging.Outcome.OUT and holder.subject.tenant in lagging:
                continue
            if outcome is judging.Outcome.OUT or rule.state.firing:
                rule.state.pending = rule.state.pending or series.heard
                judged = Judged(us(now), 0.0, outcome)
                for turn in judging.advance(rule.state, (judged,), hold=0, current_from=0):
                    details = {"lastReading": _time(series.heard)}
                    self._turns.take(holder, series.metric_name, rule, turn._replace(value=None), now, details)

    async def _judge_states(self, tx: Tx, now: datetime) -> None:
        for found in await state_evaluation.judge(tx, self._watch, self._alarms, now):
            self._turns.take(found.holder, found.name, found.rule, found.turn, now, found.details)

    async def _end_expired(self, tx: Tx, now: datetime) -> list[Outcome]:
        """End what nothing has renewed in time, and at the beginning what has no member any more."""
        ended = [
            (tenant, incident)
            for (tenant, cause), subjects in (await incident_ends.expired(tx, now)).items()
            for incident in await incident_ends.end_members(tx, tenant, cause, subjects, now, reason=NOT_SEEN)
        ]
        if self._is_first:
            ended += await incident_ends.resolve_empty(tx, self._only, now)
        return [Outcome(tenant, incident, "resolved") for tenant, incident in ended]

    async def _end_unwatched(self, tx: Tx) -> None:
        """End what is open although no rule watches it any more, or only one that has begun anew."""
        for member in await incidents.open_of_rules(tx, self._only):
            rule = self._watch.find(member.tenant, member.cause, *member.subject)
            if rule is None or not rule.state.opened:
                cause = Cause(
                    key=member.cause, rule_id=None, title=member.title, severity=member.severity, grouping="rule"
                )
                self._turns.transitions.append(Transition(member.tenant, cause, member.subject, None, NOT_WATCHED))


def _keep_together(holder: Holder, by_name: dict[str, StoredSamples]) -> None:
    """Let none of the series that rules compare be read further than another one of them."""
    compared = [name for name in by_name if holder.series[name].is_compared]
    if cut := [by_name[name].newest for name in compared if by_name[name].is_cut]:
        by_name |= {name: by_name[name].up_to(min(cut)) for name in compared}


def _wanted(places: Sequence[tuple[Holder, WatchedSeries]]) -> list[SamplesWanted]:
    return [
        SamplesWanted(holder.agent, series.metric_name, series.newest, series.needs_qualities)
        for holder, series in places
    ]


def _time(us_: int) -> datetime:
    return datetime.fromtimestamp(us_ / 1e6, UTC)
