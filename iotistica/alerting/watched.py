"""What is watched, in memory: agents, their series, and what each rule remembers of them."""

from datetime import datetime
from math import inf
from uuid import UUID

from iotistica.domain.alerts.conditions import Bounds
from iotistica.domain.alerts.detector_state import DetectorState
from iotistica.domain.alerts.rule_states import SECOND, RuleState
from iotistica.domain.alerts.rules import Rule
from iotistica.storage.alerts.rule_states import AgentStates, SeriesProgress
from iotistica.storage.alerts.rule_states import Subject as StateSubject
from iotistica.storage.alerts.watched_series import WatchedAgent


class SeriesRule:
    """One rule for one series, or for an agent as a whole."""

    __slots__ = ("bounds", "hold", "judged_until", "max_age", "others", "rule", "state")

    def __init__(
        self, rule: Rule, state: RuleState, bounds: Bounds | None = None, others: tuple[str, ...] = ()
    ) -> None:
        self.rule = rule
        self.state = state
        self.bounds = bounds
        """The bounds for this agent and device; None if the condition has none."""
        self.others = others
        """The names that the series can have with which this one is compared."""
        self.hold = int(rule.definition.for_seconds * SECOND)
        self.judged_until = 0
        """The time, in us, up to which a comparison has judged both series, although other rules have not."""
        self.max_age = int(rule.definition.max_age_seconds * SECOND)


class WatchedSeries:
    """A series and its rules.

    `newest` is the time up to which its readings were judged, and `heard` that of its newest reading, in us; 0 if
    there was none for a long time.
    """

    __slots__ = (
        "current",
        "detector",
        "device",
        "has_learned",
        "heard",
        "highest",
        "is_behind",
        "is_compared",
        "is_known",
        "is_simple",
        "lowest",
        "metric_name",
        "needs_detector",
        "needs_qualities",
        "newest",
        "rules",
    )

    def __init__(self, metric_name: str, device: str | None, newest: int) -> None:
        self.metric_name = metric_name
        self.device = device
        self.newest = newest
        self.heard = newest
        self.rules: list[SeriesRule] = []
        self.needs_qualities = self.needs_detector = False
        self.is_behind = False
        """Whether readings wait that were not read yet, because there were so many."""
        self.current = 0
        """The time, in us, at which the readings that are judged next came, also if they have waited since."""
        self.is_compared = False
        """Whether some rule compares it with another series."""
        self.is_known = False
        """Whether a rule of this process watched it before, so that nothing must be found out."""
        self.lowest, self.highest = -inf, inf
        """The bounds within which a value concerns no threshold."""
        self.is_simple = True
        """Whether all its rules are thresholds, and no other series is compared with it."""
        self.detector: DetectorState | None = None
        self.has_learned = False
        """Whether the detector knows the readings up to `newest`."""

    @classmethod
    def taken_over(cls, other: "WatchedSeries") -> "WatchedSeries":
        """Return a series without rules that knows what another one knows."""
        series = cls(other.metric_name, other.device, other.newest)
        series.heard, series.detector = other.heard, other.detector
        series.has_learned = other.has_learned and other.needs_detector
        series.is_behind, series.current = other.is_behind, other.current
        series.is_known = other.is_known or bool(other.rules)
        return series

    @property
    def is_quiet(self) -> bool:
        """Whether the extremes of new readings tell that no rule is concerned, unless a bound is crossed."""
        if not self.is_simple:
            return False
        for rule in self.rules:  # noqa: SIM110 this is asked of every series in every round, and `all` is slower
            if rule.state.pending or rule.state.firing:
                return False
        return True

    def advance(self, newest: int, *, is_cut: bool = False) -> None:
        """Note that readings up to `newest` were read; `is_cut` if more of them wait."""
        self.newest, self.heard, self.is_behind = max(self.newest, newest), max(self.heard, newest), is_cut

    def add(self, rule: SeriesRule) -> None:
        """Add a rule, whose bounds narrow those within which nothing happens."""
        self.rules.append(rule)
        if rule.bounds is not None:
            self.highest = min(self.highest, inf if rule.bounds.above is None else rule.bounds.above)
            self.lowest = max(self.lowest, -inf if rule.bounds.below is None else rule.bounds.below)


class Holder:
    """What rules watch of an agent, or of a tenant as a whole if there are no facts of an agent."""

    __slots__ = ("about", "facts", "is_dirty", "saved", "series", "subject")

    def __init__(self, subject: StateSubject, facts: WatchedAgent | None, saved: AgentStates) -> None:
        self.subject = subject
        self.facts = facts
        self.saved = saved
        """States as they were loaded; each is moved to the rule that it belongs to."""
        self.series: dict[str, WatchedSeries] = {}
        self.about: dict[str, dict[UUID, SeriesRule]] = {}
        """Rules about the whole, by what they are about, such as the agent's status or one job."""
        self.is_dirty = False

    @property
    def agent(self) -> UUID:
        """The agent's id; only agents have series."""
        assert self.subject.agent is not None  # noqa: S101 the caller comes from a series
        return self.subject.agent

    @property
    def remembers_more(self) -> bool:
        """Whether something is stored that no rule remembers any more."""
        packed = self.packed()
        return any(
            name not in packed or progress.rules.keys() - packed[name].rules.keys()
            for name, progress in self.saved.items()
        )

    def packed(self) -> AgentStates:
        """Return the states to store; rules that remember nothing are left out."""
        states = {
            series.metric_name: SeriesProgress(
                series.newest,
                {rule.rule.state_key: rule.state for rule in series.rules if not rule.state.is_blank},
                series.heard,
            )
            for series in self.series.values()
        }
        for name, rules in self.about.items():
            remembered = {rule.rule.state_key: rule.state for rule in rules.values() if not rule.state.is_blank}
            if remembered:
                states[name] = SeriesProgress(0, remembered)
        return states


def us(time: datetime) -> int:
    """Return a time in us since the epoch."""
    return int(time.timestamp() * SECOND)
