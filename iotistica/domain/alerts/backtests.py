"""Applies a rule to history: when it would have fired, before anybody is woken by it."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from iotistica.domain.alerts import rule_states
from iotistica.domain.alerts.conditions import (
    Absence,
    BadQuality,
    Bounds,
    Comparison,
    LearnedAnomaly,
    RateOfChange,
    StuckValue,
)
from iotistica.domain.alerts.detector import Verdict
from iotistica.domain.alerts.rule_states import SECOND, Judged, RuleState, Samples, Turn
from iotistica.domain.alerts.rules import RuleSpec


class Interval(NamedTuple):
    """A time in which a rule would have fired, in us; `end` is None if it still does at the end of the range."""

    start: int
    end: int | None
    value: float | None


class History(NamedTuple):
    """All readings of a series in a range, ascending: those that can be believed, and the qualities of all."""

    samples: Samples
    sent_times: Sequence[int]
    qualities: Sequence[str]
    other: Samples
    """The series that it is compared with."""
    verdicts: Sequence[Verdict | None]
    """What the learned detector says of each of the samples."""


def judged(definition: RuleSpec, bounds: Bounds | None, state: RuleState, history: History) -> Iterator[Judged]:
    """Judge all readings of a series by a rule, except those of an absence."""
    condition, samples = definition.condition, history.samples
    hold = int(definition.for_seconds * SECOND)
    match condition:
        case StuckValue():
            yield from rule_states.judge_stuck(condition, state, samples, hold=hold)
        case BadQuality():
            yield from rule_states.judge_quality(condition.qualities, history.sent_times, history.qualities)
        case LearnedAnomaly():
            calm = int(condition.calm_seconds * SECOND)
            yield from rule_states.judge_anomaly(condition.score, calm, state, samples, history.verdicts)
        case RateOfChange() if bounds is not None:
            yield from rule_states.judge_rate(condition, bounds, state, samples)
        case Comparison() if bounds is not None:
            yield from rule_states.judge_comparison(condition, bounds, state, samples, history.other)
        case _ if bounds is not None:
            yield from rule_states.judge_bounds(bounds, samples)


def intervals(
    definition: RuleSpec, bounds: Bounds | None, history: History, start: int, end: int
) -> list[Interval]:
    """Return when a rule would have opened incidents for a series between two times, and until when.

    Active hours, maintenance and cooldown count by the measured times: what begins in maintenance and lasts longer
    than it begins at its end.
    """
    if isinstance(definition.condition, Absence):
        turns = list(_absences(history.sent_times, int(definition.for_seconds * SECOND), start, end))
    else:
        state = RuleState()
        hold = 0 if isinstance(definition.condition, StuckValue) else int(definition.for_seconds * SECOND)
        readings = judged(definition, bounds, state, history)
        turns = rule_states.advance(state, readings, hold=hold, current_from=start)
    found: list[Interval] = []
    quiet_until = 0
    moments = [*history.sent_times, end]
    for number, turn in enumerate(turns):
        if not turn.fires:
            continue
        until = turns[number + 1].at if number + 1 < len(turns) else None
        opened = _first_allowed(definition, turn.at, until or end, moments, quiet_until)
        if opened is None:
            continue
        found.append(Interval(opened, until, turn.value))
        quiet_until = (until or end) + int(definition.cooldown_seconds * SECOND)
    return found


def _first_allowed(
    definition: RuleSpec, start: int, end: int, moments: Sequence[int], quiet_until: int
) -> int | None:
    """Return the first moment from `start` on, and before `end`, at which an incident may be opened."""
    if definition.active is None and definition.maintenance is None:
        opened = max(start, quiet_until)
        return opened if opened < end or opened == start else None
    first, last = bisect_right(moments, start), bisect_left(moments, end)
    for moment in (start, *moments[first:last]):
        if moment >= quiet_until and definition.may_open(datetime.fromtimestamp(moment / 1e6, UTC)):
            return moment
    return None


def _absences(times: Sequence[int], hold: int, start: int, end: int) -> Iterator[Turn]:
    """Yield where a series had no reading for `hold` us, and where the next one came."""
    for before, after in zip(times, [*times[1:], None], strict=True):
        fires_at = before + hold
        if start <= fires_at < (after or end):
            yield Turn(True, fires_at, before, None)
            if after is not None:
                yield Turn(False, after, before, None)
