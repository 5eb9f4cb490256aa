"""Judges new readings of a series by its rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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

Verdicts = Callable[[WatchedSeries, Samples], Sequence[Verdict | None]]
"""Feeds samples to the learned detector of a series; called once for a series, and only if a rule asks for it."""


class RuleTurn(NamedTuple):
    rule: SeriesRule
    series: WatchedSeries
    turn: Turn


def judge(
    series: WatchedSeries,
    rules: Sequence[SeriesRule],
    stored: StoredSamples | None,
    others: Mapping[str, StoredSamples],
    *,
    now: int,
    verdicts: Verdicts,
) -> list[RuleTurn]:
    """Advance rules of a series by what was read of it; `others` are the agent's series with new readings.

    Readings up to the maximum age of a rule before `now` are current.
    """
    turns: list[RuleTurn] = []
    samples = _samples(stored)
    said = verdicts(series, samples) if series.needs_detector and samples.times else ()
    for rule in rules:
        try:
            found = _advance(rule, stored, others, now - rule.max_age, said)
        except Exception as exc:  # noqa: BLE001 one series of one tenant must not keep all rules from going on
            logger.bind(rule=rule.rule.rule_id).opt(exception=exc).error("a series could not be judged")
            rule.state.pending, rule.state.memory = 0, []
            continue
        if found:
            turns += [RuleTurn(rule, series, turn) for turn in found]
    return turns


def _advance(
    rule: SeriesRule,
    stored: StoredSamples | None,
    others: Mapping[str, StoredSamples],
    current_from: int,
    verdicts: Sequence[Verdict | None],
) -> list[Turn]:
    condition, state, hold = rule.rule.definition.condition, rule.state, rule.hold
    samples = _samples(stored)
    match condition:
        case Threshold() if samples.times and rule.bounds is not None:
            return rule_states.advance_threshold(rule.bounds, state, samples, hold=hold, current_from=current_from)
        case RateOfChange() if samples.times and rule.bounds is not None:
            judged = rule_states.judge_rate(condition, rule.bounds, state, samples)
        case StuckValue() if samples.times:
            judged = rule_states.judge_stuck(condition, state, samples, hold=hold)
            hold = 0
        case BadQuality() if stored:
            judged = rule_states.judge_quality(condition.qualities, stored.sent_times or (), stored.qualities or ())
        case Comparison() if rule.bounds is not None:
            other = _samples(next((others[name] for name in rule.others if name in others), None))
            samples, other = samples.after(rule.judged_until), other.after(rule.judged_until)
            if not samples.times and not other.times:
                return []
            judged = rule_states.judge_comparison(condition, rule.bounds, state, samples, other)
        case LearnedAnomaly() if samples.times:
            calm = int(condition.calm_seconds * SECOND)
            judged = rule_states.judge_anomaly(condition.score, calm, state, samples, verdicts)
        case _:
            return []
    return rule_states.advance(state, judged, hold=hold, current_from=current_from)


def _samples(stored: StoredSamples | None) -> Samples:
    return Samples(stored.times, stored.values) if stored else Samples((), ())
