"""Decides when a rule fires and when its condition ends, reading by reading in the order of measured time.

Everything here is pure: the same readings in the same order give the same turns and the same state, whether they
come one by one, in batches, after a restart or from history.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from iotistica.domain.alerts.conditions import PER_SECONDS, Bounds, Comparison, RateOfChange, StuckValue
from iotistica.domain.alerts.detector import Verdict

USABLE: Final = ("good", "uncertain")
"""Qualities of values that a condition believes; others neither fire nor resolve."""
POINTS: Final = 32  # readings that are remembered for a rate of change
STUCK_READINGS: Final = 3  # readings with one value before it can be stuck
SECOND: Final = 1_000_000  # us


class Outcome(Enum):
    """What one reading says of a condition."""

    OUT = 1
    """The condition holds."""
    BETWEEN = 2
    """It does not hold, but what fires does not end yet."""
    BACK = 3
    """It does not hold, and what fires ends."""
    NOTHING = 4
    """The reading says nothing of it."""


class Samples(NamedTuple):
    """Readings of a series in ascending order of time: times in us, and values that can be believed."""

    times: Sequence[int]
    values: Sequence[float]

    def after(self, time: int) -> "Samples":
        """Return those after a time."""
        if not self.times or self.times[0] > time:
            return self
        first = bisect_right(self.times, time)
        return Samples(self.times[first:], self.values[first:])


class Turn(NamedTuple):
    """A rule begins or ceases to fire for a series."""

    fires: bool
    at: int
    """The measured time of the reading that decided, in us."""
    since: int
    """The time since which the condition has held without a break, or since which it had fired, in us."""
    value: float | None
    bound: float | None = None
    verdict: Verdict | None = None
    """What a learned detector said of the reading."""


class RuleState(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """What a rule remembers of a series; times are in us, and 0 is none."""

    pending: int = 0
    """Since when the condition holds."""
    firing: int = 0
    """Since when the rule fires."""
    opened: bool = False
    """Whether what fires has been told; it waits while the rule is quiet."""
    quiet_until: int = 0
    """Until when nothing is told after the last incident ended; by the clock of the platform."""
    memory: list[float] = []
    """What the kind of condition needs of earlier readings."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing is remembered that a new state would not say as well."""
        return not (self.pending or self.firing or self.memory or self.quiet_until)


class Judged(NamedTuple):
    """A reading with what it says of a condition."""

    time: int
    value: float
    outcome: Outcome
    bound: float | None = None
    verdict: Verdict | None = None


def advance(state: RuleState, judged: Iterable[Judged], *, hold: int, current_from: int) -> list[Turn]:
    """Advance a state by readings, and return where the rule begins or ceases to fire.

    The rule fires once the condition has held for `hold` us. Only readings from `current_from` on turn anything:
    those before are history, which counts for how long a condition has held and no more.
    """
    turns = []
    for time, value, outcome, bound, verdict in judged:
        if outcome is Outcome.OUT:
            if not state.pending:
                state.pending = time
            if not state.firing and time - state.pending >= hold and time >= current_from:
                state.firing = state.pending
                turns.append(Turn(True, time, state.pending, value, bound, verdict))
        elif outcome is not Outcome.NOTHING:
            state.pending = 0
            if outcome is Outcome.BACK and state.firing and time >= current_from:
                turns.append(Turn(False, time, state.firing, value))
                state.firing = 0
    return turns


def advance_threshold(
    bounds: Bounds, state: RuleState, samples: Samples, *, hold: int, current_from: int
) -> list[Turn]:
    """Advance the state of a threshold; the usual case, nothing near the bounds, costs two comparisons."""
    values = samples.values
    if (
        not (state.pending or state.firing)
        and (bounds.above is None or max(values) <= bounds.above)
        and (bounds.below is None or min(values) >= bounds.below)
    ):
        return []
    return advance(state, judge_bounds(bounds, samples), hold=hold, current_from=current_from)


def judge_bounds(bounds: Bounds, samples: Samples) -> Iterator[Judged]:
    """Judge whether values are within their bounds."""
    return (_judge(bounds, time, value) for time, value in zip(*samples, strict=True))


def _judge(bounds: Bounds, time: int, value: float) -> Judged:
    if bounds.is_out(value):
        return Judged(time, value, Outcome.OUT, bounds.crossed(value))
    return Judged(time, value, Outcome.BACK if bounds.is_back(value) else Outcome.BETWEEN)


def judge_rate(condition: RateOfChange, bounds: Bounds, state: RuleState, samples: Samples) -> Iterator[Judged]:
    """Judge how fast a value changes, from the reading that is `window_seconds` older or a bit more.

    Remembers up to `POINTS` readings of the window, which are evenly spaced if there are more of them.
    """
    window, scale = condition.window_seconds * SECOND, PER_SECONDS[condition.per] * SECOND
    points = state.memory
    for time, value in zip(*samples, strict=True):
        while len(points) >= 4 and points[2] <= time - window:
            del points[:2]
        if points and points[0] <= time - window and time > points[0]:
            yield _judge(bounds, time, (value - points[1]) / (time - points[0]) * scale)
        if not points or time - points[-2] >= window / POINTS:
            points += (float(time), value)


def judge_stuck(condition: StuckValue, state: RuleState, samples: Samples, *, hold: int) -> Iterator[Judged]:
    """Judge whether a value has stayed where it is for `hold` us, in at least `STUCK_READINGS` readings."""
    memory = state.memory
    for time, value in zip(*samples, strict=True):
        if not memory or abs(value - memory[0]) > condition.tolerance:
            memory[:] = (value, float(time), 1.0)
            yield Judged(time, value, Outcome.BACK)
            continue
        memory[2] += 1
        is_stuck = time - memory[1] >= hold and memory[2] >= STUCK_READINGS
        if is_stuck and not state.pending:
            state.pending = int(memory[1])
        yield Judged(time, value, Outcome.OUT if is_stuck else Outcome.BETWEEN)


def judge_quality(qualities: Sequence[str], times: Sequence[int], sent: Sequence[str]) -> Iterator[Judged]:
    """Judge the qualities of readings, whether their values can be believed or not."""
    for time, quality in zip(times, sent, strict=True):
        yield Judged(time, 0.0, Outcome.OUT if quality in qualities else Outcome.BACK)


def judge_comparison(
    condition: Comparison, bounds: Bounds, state: RuleState, left: Samples, right: Samples
) -> Iterator[Judged]:
    """Judge two series of an agent together: each reading against the newest of the other series."""
    apart = condition.apart_seconds * SECOND
    memory = state.memory or [0.0, 0.0, 0.0, 0.0]  # time and value of both sides; time 0 is none
    state.memory = memory
    merged = sorted(
        [(time, 0, value) for time, value in zip(*left, strict=True)]
        + [(time, 2, value) for time, value in zip(*right, strict=True)]
    )
    for place, (time, side, value) in enumerate(merged):
        memory[side : side + 2] = float(time), value
        if place + 1 < len(merged) and merged[place + 1][0] == time:
            continue  # the other side was measured at the same moment
        if not (memory[0] and memory[2]) or abs(memory[0] - memory[2]) > apart:
            continue
        if condition.as_ == "difference":
            yield _judge(bounds, time, memory[1] - memory[3])
        elif memory[3]:
            yield _judge(bounds, time, memory[1] / memory[3])


def judge_anomaly(
    score: float, calm: int, state: RuleState, samples: Samples, verdicts: Sequence[Verdict | None]
) -> Iterator[Judged]:
    """Judge what a detector says: an anomaly fires at once, and ends after `calm` us of values within the band."""
    memory = state.memory  # since when values are within the band
    for time, value, verdict in zip(*samples, verdicts, strict=True):
        if verdict is None:
            continue
        if verdict.score >= score:
            memory.clear()
            yield Judged(time, value, Outcome.OUT, None, verdict)
        elif not verdict.low <= value <= verdict.high:
            memory.clear()
            yield Judged(time, value, Outcome.BETWEEN)
        elif state.firing or memory:
            memory[:] = memory or (float(time),)
            is_calm = time - memory[0] >= calm
            if is_calm:
                memory.clear()
            yield Judged(time, value, Outcome.BACK if is_calm else Outcome.BETWEEN)


def judge_absence(newest: int, now: int, *, hold: int) -> Outcome:
    """Judge whether a series has had no reading for `hold` us; `newest` is the time of its newest reading."""
    return Outcome.OUT if now - newest > hold else Outcome.BACK
