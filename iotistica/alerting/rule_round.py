"""One round of the alert rules: what was stored since the last, what it means, and the incidents it makes."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.alerting import incident_evidence, series_evaluation, state_evaluation, transitions, watch_loading
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.detectors import Detectors
from iotistica.alerting.transitions import Outcome, Transition
from iotistica.alerting.watch import Watch
from iotistica.alerting.watched import Holder, SeriesRule, WatchedSeries, us
from iotistica.domain.alerts import rule_states as judging
from iotistica.domain.alerts.conditions import LearnedAnomaly
from iotistica.domain.alerts.incidents import NewMember, Subject
from iotistica.domain.alerts.rule_states import SECOND, Judged, Samples, Turn
from iotistica.storage.alerts import incidents, rule_states, state_findings, watched_series
from iotistica.storage.alerts.watched_series import SERIES_PER_READ, SamplesWanted, StoredSamples
from iotistica.storage.delivery import ledger
from iotistica.storage.postgres import Database, Tx

SAVE_SECONDS: Final = 5.0  # seconds between saves of what rules remember, if nothing begins or ends
LONGEST_TRANSACTION: Final = timedelta(seconds=60)  # a series is visible that much later than it was first seen


class _Fired(NamedTuple):
    """A rule that fires and has not been told, because it may not open an incident yet."""

    holder: Holder
    name: str
    rule: SeriesRule
    turn: Turn
    details: dict[str, Any]


class RuleRounds:
    """Applies the rules of one watch, in one transaction a round: an error undoes the round as a whole."""

    def __init__(
        self, database: Database, watch: Watch, announcer: Announcer, alarms: Mapping[str, str], xmin: int
    ) -> None:
        """`xmin` is the oldest transaction that was open before the watch was loaded."""
        self._database = database
        self._watch = watch
        self._announcer = announcer
        self._alarms = alarms
        self._xmin = xmin
        self._known: dict[int, int] = {}  # rows of the ledger that were read before: their ids and transactions
        self._is_first = True
        self._looked_at: datetime | None = None
        self._saved_at: datetime | None = None
        self._waiting: dict[tuple[int, str, int], _Fired] = {}
        self._transitions: list[Transition] = []
        self._detectors = Detectors(watch)

    async def run(self, now: datetime, lagging: Collection[str] = ()) -> list[Outcome]:
        """Run one round, and return the incidents that it opened and resolved.

        Nobody of the `lagging` tenants is called silent.
        """
        self._transitions = []
        async with self._database.transaction() as tx:
            if self._watch.rules:
                await self._follow(tx, now)
                await self._judge_absences(tx, now, lagging)
                await self._judge_states(tx, now)
                self._open_waiting(now)
            ended = await incidents.end_expired(tx, now)
            outcomes = [Outcome(tenant, incident, "resolved") for tenant, incident in ended]
            if self._transitions:
                await incident_evidence.add(tx, self._transitions)
                outcomes += await transitions.apply(tx, self._transitions, now)
            await self._announcer.run(tx, now)
            await self._detectors.save(tx, now)
            if self._transitions or self._saved_at is None or (now - self._saved_at).total_seconds() > SAVE_SECONDS:
                await self._save(tx, now)
        return outcomes

    async def save(self, now: datetime) -> None:
        """Store what the rules remember."""
        async with self._database.transaction() as tx:
            await self._save(tx, now)
            await self._detectors.save(tx, now, at_once=True)

    async def _save(self, tx: Tx, now: datetime) -> None:
        holders = [h for h in (*self._watch.agents.values(), *self._watch.platform.values()) if h.is_dirty]
        await rule_states.save(tx, {holder.subject: holder.packed() for holder in holders})
        for holder in holders:
            holder.is_dirty = False
        self._saved_at = now

    async def _follow(self, tx: Tx, now: datetime) -> None:
        """Judge what was stored since the last round, and the readings whose time has come."""
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
            self._is_first = False
            self._restore_waiting()
            every = [(h, series) for h in self._watch.agents.values() for series in h.series.values()]
            await self._detectors.add(tx, every)
        await self._detectors.learn(tx)
        holders = [self._watch.agents[agent] for agent in active if agent in self._watch.agents]
        await self._judge_series(tx, holders, now)

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

    async def _judge_series(self, tx: Tx, holders: Sequence[Holder], now: datetime) -> None:
        """Judge all watched series of these agents; those of one agent together, since rules can compare them."""
        group: list[Holder] = []
        size = 0
        for holder in holders:
            group.append(holder)
            size += len(holder.series)
            if size >= SERIES_PER_READ:
                await self._judge_group(tx, group, now)
                group, size = [], 0
                await asyncio.sleep(0)
        await self._judge_group(tx, group, now)

    async def _judge_group(self, tx: Tx, holders: Sequence[Holder], now: datetime) -> None:
        places = [(holder, series) for holder in holders for series in holder.series.values()]
        quiet = [place for place in places if place[1].is_quiet]
        crossed = await self._pass_quiet(tx, quiet, now)
        places = [place for place in places if not place[1].is_quiet] + crossed
        found: dict[int, dict[str, StoredSamples]] = {}
        for stored in await watched_series.samples(tx, self._watch.tenants, _wanted(places), until=now):
            holder, series = places[stored.number]
            found.setdefault(id(holder), {})[series.metric_name] = stored
            series.newest, series.heard = stored.newest, stored.newest
            holder.is_dirty = True
            if stored.is_cut:
                self._watch.expect(holder, us(now) + 1)  # the rest is judged in the next round
        for holder in holders:
            by_name = found.get(id(holder))
            if by_name is None:
                continue
            others = {name: Samples(stored.times, stored.values) for name, stored in by_name.items()}
            for series in holder.series.values():
                if series.is_simple and series.metric_name not in by_name:
                    continue
                stored_samples = by_name.get(series.metric_name)
                for rule, _, turn in series_evaluation.judge(
                    series,
                    stored_samples,
                    others,
                    now=us(now),
                    verdicts=partial(self._detectors.judge, holder),
                ):
                    self._turn(holder, series.metric_name, rule, turn, now, {})

    async def _pass_quiet(
        self, tx: Tx, places: Sequence[tuple[Holder, WatchedSeries]], now: datetime
    ) -> list[tuple[Holder, WatchedSeries]]:
        """Pass over series whose new values are all within the bounds of their rules; return the others."""
        crossed = []
        for number, newest, low, high in await watched_series.extremes(
            tx, self._watch.tenants, _wanted(places), until=now
        ):
            holder, series = places[number]
            if low is not None and high is not None and (high > series.highest or low < series.lowest):
                crossed.append((holder, series))
            else:
                series.newest = series.heard = newest
                holder.is_dirty = True
        return crossed

    async def _judge_absences(self, tx: Tx, now: datetime, lagging: Collection[str]) -> None:
        """Judge which series are silent; the time in which the platform itself took nothing in does not count."""
        since = await state_findings.platform_since(tx)
        accepting = us(since) if since is not None else us(now)
        for holder, series, rule in self._watch.absences:
            if not series.heard:
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
                    self._turn(holder, series.metric_name, rule, turn._replace(value=None), now, details)

    async def _judge_states(self, tx: Tx, now: datetime) -> None:
        for found in await state_evaluation.judge(tx, self._watch, self._alarms, now):
            self._turn(found.holder, found.name, found.rule, found.turn, now, found.details)

    def _turn(
        self, holder: Holder, name: str, rule: SeriesRule, turn: Turn, now: datetime, details: dict[str, Any]
    ) -> None:
        """Take in that a rule begins or ceases to fire; what may not be told yet waits."""
        holder.is_dirty = True
        key = id(holder), name, id(rule)
        if turn.fires:
            fired = _Fired(holder, name, rule, turn, details)
            if _may_open(rule, now):
                self._open(fired)
            else:
                self._waiting[key] = fired
        elif rule.state.opened:
            rule.state.opened = False
            rule.state.quiet_until = us(now) + int(rule.rule.definition.cooldown_seconds * SECOND)
            self._transitions.append(_transition(holder, name, rule, None))
        else:
            self._waiting.pop(key, None)

    def _restore_waiting(self) -> None:
        """Find the rules that fire and wait to be told since before the last start."""
        for holder in (*self._watch.agents.values(), *self._watch.platform.values()):
            named = [(series.metric_name, rule) for series in holder.series.values() for rule in series.rules]
            named += [(name, rule) for name, rules in holder.about.items() for rule in rules.values()]
            for name, rule in named:
                if rule.state.firing and not rule.state.opened:
                    turn = Turn(True, rule.state.firing, rule.state.firing, None)
                    self._waiting[id(holder), name, id(rule)] = _Fired(holder, name, rule, turn, {})

    def _open_waiting(self, now: datetime) -> None:
        """Tell what still fires now that it may be told."""
        for key, fired in list(self._waiting.items()):
            if _may_open(fired.rule, now):
                del self._waiting[key]
                self._open(fired)

    def _open(self, fired: _Fired) -> None:
        fired.rule.state.opened = True
        fired.holder.is_dirty = True
        turn, definition = fired.turn, fired.rule.rule.definition
        details: dict[str, Any] = {"at": _time(turn.at), **fired.details}
        if turn.bound is not None:
            details["bound"] = turn.bound
        if turn.verdict is not None:
            score, *expected = turn.verdict
            details |= {"score": score, "expected": dict(zip(("value", "low", "high"), expected, strict=True))}
        if isinstance(definition.condition, LearnedAnomaly):
            details["threshold"] = definition.condition.score
        if definition.for_seconds:
            details["forSeconds"] = definition.for_seconds
        member = NewMember(
            subject=Subject(fired.holder.subject.agent, fired.name.strip()),
            since=_time(turn.since),
            value=turn.value,
            details=details,
        )
        self._transitions.append(_transition(fired.holder, fired.name, fired.rule, member))


def _may_open(rule: SeriesRule, now: datetime) -> bool:
    """Whether a rule may open an incident now: at a time that it is meant for, and after its cooldown."""
    return us(now) >= rule.state.quiet_until and rule.rule.definition.may_open(now)


def _wanted(places: Sequence[tuple[Holder, WatchedSeries]]) -> list[SamplesWanted]:
    return [
        SamplesWanted(holder.agent, series.metric_name, series.newest, series.needs_qualities)
        for holder, series in places
    ]


def _transition(holder: Holder, name: str, rule: SeriesRule, member: NewMember | None) -> Transition:
    subject = Subject(holder.subject.agent, name.strip())
    reason = "" if member else "the condition has ended"
    return Transition(holder.subject.tenant, transitions.cause_of(rule.rule), subject, member, reason)


def _time(us_: int) -> datetime:
    return datetime.fromtimestamp(us_ / 1e6, UTC)
