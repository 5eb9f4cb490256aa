"""Takes in that rules begin and cease to fire, and decides what may be told now and what waits."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from iotistica.alerting import transitions
from iotistica.alerting.transitions import Transition
from iotistica.alerting.watch import Watch
from iotistica.alerting.watched import Holder, SeriesRule, us
from iotistica.domain.alerts.conditions import LearnedAnomaly
from iotistica.domain.alerts.incidents import NewMember, Subject
from iotistica.domain.alerts.rule_states import SECOND, Turn


class _Fired(NamedTuple):
    """A rule that fires and has not been told, because it may not open an incident yet."""

    holder: Holder
    name: str
    rule: SeriesRule
    turn: Turn
    details: dict[str, Any]


class Turns:
    """The transitions of one round, and the rules that fire and wait until they may be told."""

    def __init__(self) -> None:
        self.transitions: list[Transition] = []
        self._waiting: dict[tuple[int, str, int], _Fired] = {}

    def take(
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
            self.transitions.append(_transition(holder, name, rule, None))
        else:
            self._waiting.pop(key, None)

    def restore(self, watch: Watch) -> None:
        """Find the rules that fire and wait to be told since before the last start."""
        for holder in (*watch.agents.values(), *watch.platform.values()):
            named = [(series.metric_name, rule) for series in holder.series.values() for rule in series.rules]
            named += [(name, rule) for name, rules in holder.about.items() for rule in rules.values()]
            for name, rule in named:
                if rule.state.firing and not rule.state.opened:
                    turn = Turn(True, rule.state.firing, rule.state.firing, None)
                    self._waiting[id(holder), name, id(rule)] = _Fired(holder, name, rule, turn, {})

    def open_waiting(self, now: datetime) -> None:
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
        self.transitions.append(_transition(fired.holder, fired.name, fired.rule, member))


def _may_open(rule: SeriesRule, now: datetime) -> bool:
    """Whether a rule may open an incident now: at a time that it is meant for, and after its cooldown."""
    return us(now) >= rule.state.quiet_until and rule.rule.definition.may_open(now)


def _transition(holder: Holder, name: str, rule: SeriesRule, member: NewMember | None) -> Transition:
    subject = Subject(holder.subject.agent, name.strip())
    reason = "" if member else "the condition has ended"
    return Transition(holder.subject.tenant, transitions.cause_of(rule.rule), subject, member, reason)


def _time(us_: int) -> datetime:
    return datetime.fromtimestamp(us_ / 1e6, UTC)
