"""Judges new readings of a series by its rules."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from loguru import logger

from iotistica.alerting.watched import SeriesRule, WatchedSeries
from iotistica.domain.alerts import rule_states
from iotistica.domain.alerts.conditions import (
    BadQuality,
    Comparison,
    LearnedAnomaly,
    RateOfChange,
    StuckValue,
    Threshold,
)
from iotistica.domain.alerts.detector import Verdict
from iotistica.domain.alerts.rule_states import SECOND, Samples, Turn
from iotistica.storage.alerts.watched_readings import StoredSamples

NOTHING: Final = Samples((), ())
Verdicts = Callable[[WatchedSeries, Samples], Sequence[Verdict | None]]
"""Feeds samples to the learned detector of a series; called once for a series, and only if a rule asks for it."""


class RuleTurn(NamedTuple):
    rule: SeriesRule
    series: WatchedSeries
    turn: Turn


class Read(NamedTuple):
    """What was read of a series, and the time up to which all rules but new ones have judged it, in us."""

    stored: StoredSamples
    judged_until: int

    def samples(self, rule: SeriesRule) -> Samples:
        """Return what a rule has not judged yet."""
        first = self._first(rule, self.stored.times)
        return Samples(self.stored.times[first:], self.stored.values[first:])

    def qualities(self, rule: SeriesRule) -> tuple[Sequence[int], Sequence[str]]:
        """Return the times and qualities that a rule has not judged yet."""
        times, qualities = self.stored.sent_times or (), self.stored.qualities or ()
        first = self._first(rule, times)
        return times[first:], qualities[first:]

    def _first(self, rule: SeriesRule, times: Sequence[int]) -> int:
        return 0 if rule.is_new else bisect_right(times, self.judged_until)


def judge(
    series: WatchedSeries,
    read: Read | None,
    others: Mapping[str, Read],
    *,
    now: int,
    verdicts: Verdicts,
) -> list[RuleTurn]:
    """Advance the rules of a series by what was read of it; `others` are the agent's series with new readings.

    Readings up to the maximum age of a rule before `now` are current.
    """
    turns: list[RuleTurn] = []
    every = Samples(read.stored.times, read.stored.values) if read else NOTHING
    said = verdicts(series, every) if series.needs_detector and every.times else ()
    for rule in series.rules:
        try:
            found = _advance(rule, read, others, now - rule.max_age, said)
        except Exception as exc:  # noqa: BLE001 one series of one tenant must not keep all rules from going on
            logger.bind(rule=rule.rule.rule_id).opt(exception=exc).error("a series could not be judged")
            rule.state.pending, rule.state.memory = 0, []
            continue
        if found:
            turns += [RuleTurn(rule, series, turn) for turn in found]
    return turns


def _advance(
    rule: SeriesRule,
    read: Read | None,
    others: Mapping[str, Read],
    current_from: int,
    verdicts: Sequence[Verdict | None],
) -> list[Turn]:
    condition, state, hold = rule.rule.definition.condition, rule.state, rule.hold
    samples = read.samples(rule) if read else NOTHING
    match condition:
        case Threshold() if samples.times and rule.bounds is not None:
            return rule_states.advance_threshold(rule.bounds, state, samples, hold=hold, current_from=current_from)
        case RateOfChange() if samples.times and rule.bounds is not None:
            judged = rule_states.judge_rate(condition, rule.bounds, state, samples)
        case StuckValue() if samples.times:
            judged = rule_states.judge_stuck(condition, state, samples, hold=hold)
            hold = 0
        case BadQuality() if read:
            judged = rule_states.judge_quality(condition.qualities, *read.qualities(rule))
        case Comparison() if rule.bounds is not None:
            other = next((others[name].samples(rule) for name in rule.others if name in others), NOTHING)
            if not samples.times and not other.times:
                return []
            judged = rule_states.judge_comparison(condition, rule.bounds, state, samples, other)
        case LearnedAnomaly() if samples.times:
            calm = int(condition.calm_seconds * SECOND)
            new = verdicts[len(verdicts) - len(samples.times) :]
            judged = rule_states.judge_anomaly(condition.score, calm, state, samples, new)
        case _:
            return []
    return rule_states.advance(state, judged, hold=hold, current_from=current_from)
