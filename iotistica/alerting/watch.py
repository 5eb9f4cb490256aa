"""What the rules of all tenants watch, in memory: agents, their series, and what each rule remembers of them."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from iotistica.alerting.rule_candidates import RuleCandidates
from iotistica.alerting.watched import Holder, SeriesRule, WatchedSeries, us
from iotistica.domain.alerts import scopes
from iotistica.domain.alerts.conditions import (
    Absence,
    AgentStatus,
    BadQuality,
    Comparison,
    FailedJob,
    LearnedAnomaly,
    PlatformAlarm,
    RefusedMessages,
    Threshold,
)
from iotistica.domain.alerts.rule_states import RuleState
from iotistica.domain.alerts.rules import STATE_CONDITIONS, Rule
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts.rule_states import AgentStates
from iotistica.storage.alerts.rule_states import Subject as StateSubject
from iotistica.storage.alerts.watched_series import SeriesRow, WatchedAgent

BACKLOG: Final = timedelta(days=1)
"""How far back readings are judged that were stored while no process applied the rules."""
SERIES_LIMIT: Final = 100_000  # series of a tenant that rules watch, unless its quota says otherwise
STATUS: Final = " status"
JOB: Final = " job "
REFUSED: Final = " refused messages"
ALARM: Final = " alarm "
KIND_BY_PREFIX: Final[dict[str, type]] = {
    STATUS: AgentStatus,
    JOB: FailedJob,
    REFUSED: RefusedMessages,
    ALARM: PlatformAlarm,
}
"""What rules about a whole are about, by how its name begins: with a space, unlike the name of a series."""


class NewRule(NamedTuple):
    """A rule that has not judged the newest readings of a series, which were judged by others."""

    holder: Holder
    series: WatchedSeries
    rule: SeriesRule
    after: int
    """The time, in us, after which readings matter to it."""


class Watch:
    """The enabled rules, and the agents and series that they watch."""

    def __init__(self, rules: Iterable[Rule], previous: "Watch | None" = None) -> None:
        """`previous` is what this process has watched until now; what it knows of series is taken over."""
        self.rules = list(rules)
        self._previous = previous
        self.agents: dict[UUID, Holder] = {}
        self.platform: dict[TenantId, Holder] = {}
        self.absences: list[tuple[Holder, WatchedSeries, SeriesRule]] = []
        """Every series with each rule that fires when it is silent."""
        self.new_rules: list[NewRule] = []
        """The rules that must judge what others have judged, or they would miss a reading of this moment."""
        self.expected: dict[UUID, int] = previous.expected if previous else {}
        """Agents that have stored readings whose time has not come, each with the last such time, in us."""
        self.unsaved_detectors: set[UUID] = previous.unsaved_detectors if previous else set()
        """Agents with learned detectors that have learned since they were stored."""
        self.detectors_saved_at: datetime | None = previous.detectors_saved_at if previous else None
        self._by_tenant: dict[TenantId, list[Rule]] = {}
        self._by_agent: dict[UUID, RuleCandidates] = {}
        self._watched: dict[TenantId, int] = {}
        self.limits: dict[TenantId, int] = {}
        """How many series can be watched, for tenants that do not have `SERIES_LIMIT`."""
        self.left_out: dict[TenantId, int] = {}
        """How many series are not watched because of that."""
        for rule in self.rules:
            self._by_tenant.setdefault(rule.tenant_id, []).append(rule)

    def forget_previous(self) -> None:
        """Let go of the watch before, once all that it knew is taken over."""
        self._previous = None

    @property
    def tenants(self) -> Collection[TenantId]:
        """The tenants that have rules."""
        return self._by_tenant.keys()

    @property
    def longest_absence(self) -> timedelta:
        """Return the longest time for which some rule lets a series be silent."""
        seconds = [r.definition.for_seconds for r in self.rules if isinstance(r.definition.condition, Absence)]
        return timedelta(seconds=max(seconds, default=0.0))

    @property
    def judges_silence(self) -> bool:
        """Whether some rule fires when nothing comes."""
        return any(isinstance(rule.definition.condition, (Absence, AgentStatus)) for rule in self.rules)

    def count_series(self) -> int:
        """Return how many series are watched."""
        return sum(1 for holder in self.agents.values() for series in holder.series.values() if series.rules)

    def expect(self, holder: Holder, until: int) -> None:
        """Note that an agent has readings with times up to `until`, in us, which are judged when they come."""
        self.expected[holder.agent] = max(until, self.expected.get(holder.agent, 0))

    def tenants_with(self, kind: type) -> list[TenantId]:
        """Return the tenants that have rules with this kind of condition."""
        return sorted({rule.tenant_id for rule in self.rules if isinstance(rule.definition.condition, kind)})

    def add_agent(self, facts: WatchedAgent, saved: AgentStates) -> None:
        """Add an agent that rules can be about; `saved` is what was stored of it."""
        subject = StateSubject(facts.tenant_id, facts.agent_uuid)
        self.agents[facts.agent_uuid] = Holder(subject, facts, saved)
        self._restore(self.agents[facts.agent_uuid])

    def add_platform(self, tenant: TenantId, saved: AgentStates) -> None:
        """Add what concerns a tenant as a whole; `saved` is what was stored of it."""
        self.platform[tenant] = Holder(StateSubject(tenant, None), None, saved)
        self._restore(self.platform[tenant])

    def _restore(self, holder: Holder) -> None:
        """Restore the rules about an agent or a tenant as a whole that remember something."""
        for name in holder.saved:
            kind = next((kind for prefix, kind in KIND_BY_PREFIX.items() if name.startswith(prefix)), None)
            if kind is not None:
                self.rules_of(holder, name, kind)

    def rules_of(self, holder: Holder, name: str, kind: type) -> Collection[SeriesRule]:
        """Return the rules with this kind of condition about an agent or a tenant, for what `name` says."""
        rules = holder.about.get(name)
        if rules is None:
            saved = holder.saved[name].rules if name in holder.saved else {}
            rules = holder.about[name] = {
                rule.rule_id: SeriesRule(rule, saved.get(rule.state_key) or RuleState())
                for rule in self._about(holder, (kind,))
            }
        return rules.values()

    def _about(self, holder: Holder, kinds: tuple[type, ...]) -> list[Rule]:
        return [
            rule
            for rule in self._by_tenant.get(holder.subject.tenant, ())
            if isinstance(rule.definition.condition, kinds)
            and (holder.facts is None or scopes.has_agent(rule.definition.scope, holder.facts))
        ]

    def add_series(self, rows: Iterable[SeriesRow], now: datetime) -> list[tuple[Holder, WatchedSeries]]:
        """Add the series that some rule watches; return those that were not watched before."""
        added = []
        for row in rows:
            agent = self.agents.get(row.agent_uuid)
            if agent is None or agent.facts is None:
                continue
            known = agent.series.get(row.metric_name)
            if known is not None and known.rules:
                continue
            rules = [
                rule
                for rule in self._candidates(agent.facts).of(row)
                if scopes.has_series(rule.definition.scope, row.metric_name, row.metric, row.device_name)
            ]
            if not rules:
                continue
            tenant = agent.subject.tenant
            if self._watched.get(tenant, 0) >= self.limits.get(tenant, SERIES_LIMIT):
                self.left_out[tenant] = self.left_out.get(tenant, 0) + 1
                continue
            self._watched[tenant] = self._watched.get(tenant, 0) + 1
            series = known or self._new_series(agent, row.metric_name, row.device_name, rules, now)
            series.device = row.device_name
            for rule in rules:
                self._watch(agent, series, rule, now)
            added.append((agent, series))
        return added

    def find(self, tenant: TenantId, cause: str, agent: UUID | None, name: str) -> SeriesRule | None:
        """Return the rule with this id for a series or a whole, as members of incidents name them."""
        holder = self.platform.get(tenant) if agent is None else self.agents.get(agent)
        if holder is None or holder.subject.tenant != tenant:
            return None
        series = holder.series.get(name)
        rules = [*(series.rules if series else ()), *holder.about.get(f" {name}", {}).values()]
        return next((rule for rule in rules if rule.rule.cause == cause), None)

    def _candidates(self, agent: WatchedAgent) -> RuleCandidates:
        found = self._by_agent.get(agent.agent_uuid)
        if found is None:
            found = self._by_agent[agent.agent_uuid] = RuleCandidates(
                rule
                for rule in self._by_tenant.get(agent.tenant_id, ())
                if not isinstance(rule.definition.condition, STATE_CONDITIONS)
                and scopes.has_agent(rule.definition.scope, agent)
            )
        return found

    def _watch(self, agent: Holder, series: WatchedSeries, rule: Rule, now: datetime) -> None:
        condition = rule.definition.condition
        saved = agent.saved.get(series.metric_name)
        state = saved.rules.get(rule.state_key) if saved else None
        others: tuple[str, ...] = ()
        if isinstance(condition, Comparison):
            device = series.device.replace(".", "_") if series.device else None
            others = (f"{device}.{condition.other}", condition.other) if device else (condition.other,)
            for name in others:
                other = agent.series.get(name) or self._new_series(agent, name, None, [rule], now)
                other.is_simple, other.is_compared = False, True
        assert agent.facts is not None  # noqa: S101 only agents have series
        bounds = rule.definition.bounds_for(agent.facts, series.device)
        added = SeriesRule(rule, state or RuleState(), bounds, others)
        series.add(added)
        if (
            state is None
            and not isinstance(condition, (Absence, LearnedAnomaly))
            and self._is_new(agent, series, rule)
        ):
            after = _start(rule, now)
            if any(after < agent.series[name].newest for name in (series.metric_name, *others)):
                self.new_rules.append(NewRule(agent, series, added, after))
        if isinstance(condition, Absence):
            self.absences.append((agent, series, added))
        series.is_simple &= isinstance(condition, Threshold)
        series.is_compared |= isinstance(condition, Comparison)
        series.needs_qualities |= isinstance(condition, BadQuality)
        series.needs_detector |= isinstance(condition, LearnedAnomaly)

    def _is_new(self, agent: Holder, series: WatchedSeries, rule: Rule) -> bool:
        """Whether the rule was written since rules were applied last, or only now concerns the series."""
        if rule.is_new:
            return True
        before = self._before(agent, series.metric_name)
        return before is not None and all(known.rule.rule_id != rule.rule_id for known in before.rules)

    def _before(self, agent: Holder, name: str) -> WatchedSeries | None:
        before = self._previous.agents.get(agent.agent) if self._previous else None
        return before.series.get(name) if before else None

    def _new_series(
        self, agent: Holder, name: str, device: str | None, rules: list[Rule], now: datetime
    ) -> WatchedSeries:
        """Return a series watched from where it was left, or from so long ago that rules can fire at once."""
        before = self._before(agent, name)
        if before is not None:
            series = agent.series[name] = WatchedSeries.taken_over(before)
            return series
        saved = agent.saved.get(name)
        newest = max(saved.newest, us(now - BACKLOG)) if saved else min(_start(rule, now) for rule in rules)
        series = agent.series[name] = WatchedSeries(name, device, newest)
        series.heard = saved.heard if saved else 0
        return series


def _start(rule: Rule, now: datetime) -> int:
    """Return the time, in us, after which readings matter to a rule that begins now."""
    seconds = rule.definition.max_age_seconds
    if not isinstance(rule.definition.condition, Absence):  # which asks for the newest reading, found otherwise
        seconds += rule.definition.for_seconds
    span = timedelta(seconds=seconds)
    return us(now - min(span, BACKLOG))
