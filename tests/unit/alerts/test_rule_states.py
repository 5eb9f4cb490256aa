"""When rules fire and end: the same however readings come, and only for what is current."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.alerts import rule_states
from iotistica.domain.alerts.conditions import (
    BadQuality,
    Bounds,
    Comparison,
    Condition,
    RateOfChange,
    StuckValue,
    Threshold,
)
from iotistica.domain.alerts.rule_states import SECOND, Judged, RuleState, Samples, Turn

Readings = list[tuple[int, float]]
QUALITIES = ("good", "uncertain", "bad", "stale", "unknown")

values = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([60.0, 65.0, 66.0, 70.0, 70.1, 71.0]))
readings = st.lists(st.tuples(st.integers(1, 200), values), min_size=1, max_size=60).map(
    lambda rows: [(SECOND * sum(step for step, _ in rows[: n + 1]), value) for n, (_, value) in enumerate(rows)]
)
conditions = st.sampled_from(
    [
        Threshold(above=70),
        Threshold(above=70, clear_below=65),
        Threshold(below=-5, above=70, clear_above=0),
        RateOfChange(above=10, below=-10, per="second", window_seconds=30),
        RateOfChange(above=1, per="minute", window_seconds=0),
        StuckValue(tolerance=1),
        BadQuality(qualities=("bad", "stale")),
    ]
)


def judge(condition: Condition, state: RuleState, rows: Readings, hold: int) -> Iterator[Judged]:
    samples = Samples([time for time, _ in rows], [value for _, value in rows])
    match condition:
        case RateOfChange():
            return rule_states.judge_rate(condition, condition, state, samples)
        case StuckValue():
            return rule_states.judge_stuck(condition, state, samples, hold=hold)
        case BadQuality():
            qualities = [QUALITIES[int(abs(value)) % 5] for _, value in rows]
            return rule_states.judge_quality(condition.qualities, samples.times, qualities)
        case _:
            assert isinstance(condition, Bounds)
            return rule_states.judge_bounds(condition, samples)


def advance(condition: Condition, state: RuleState, rows: Readings, hold: int, current_from: int = 0) -> list[Turn]:
    least = 0 if isinstance(condition, StuckValue) else hold
    return rule_states.advance(state, judge(condition, state, rows, hold), hold=least, current_from=current_from)


@given(conditions, readings, st.integers(0, 300), st.lists(st.integers(0, 60), max_size=5))
def test_batches_and_restarts_change_nothing(
    condition: Condition, rows: Readings, hold: int, cuts: Sequence[int]
) -> None:
    """Readings in any batches, with the state stored and loaded between them, give the same turns and state."""
    whole = RuleState()
    expected = advance(condition, whole, rows, hold * SECOND)
    parts, turns = RuleState(), []
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        turns += advance(condition, parts, rows[start:end], hold * SECOND)
        parts = msgspec.msgpack.decode(msgspec.msgpack.encode(parts), type=RuleState)
    assert turns == expected
    assert msgspec.msgpack.encode(parts) == msgspec.msgpack.encode(whole)


@given(conditions, readings, st.integers(0, 300))
def test_a_rule_fires_and_ends_in_turn_and_never_too_early(condition: Condition, rows: Readings, hold: int) -> None:
    """Turns alternate, begin with firing, and each comes after the condition has held long enough."""
    turns = advance(condition, RuleState(), rows, hold * SECOND)
    assert [turn.fires for turn in turns] == [n % 2 == 0 for n in range(len(turns))]
    for turn in turns:
        if turn.fires:
            assert turn.at - turn.since >= hold * SECOND
    assert [turn.at for turn in turns] == sorted(turn.at for turn in turns)


@given(conditions, readings, st.integers(0, 300), st.integers(0, 12_000))
def test_readings_of_the_past_turn_nothing(condition: Condition, rows: Readings, hold: int, from_: int) -> None:
    """No turn is at a reading before the first that is current."""
    assert all(
        turn.at >= from_ * SECOND
        for turn in advance(condition, RuleState(), rows, hold * SECOND, current_from=from_ * SECOND)
    )


@given(
    st.builds(
        lambda low, width, inner: Threshold(
            below=low,
            above=low + width,
            clear_above=low + inner * width / 4,
            clear_below=low + width * (1 - inner / 4),
        ),
        st.floats(-100, 100),
        st.floats(1, 100),
        st.floats(0, 1),
    ),
    readings,
    st.integers(0, 100),
)
def test_the_short_cut_of_a_threshold_gives_the_same(bounds: Threshold, rows: Readings, hold: int) -> None:
    """Two comparisons decide for a quiet batch what judging each reading would."""
    samples = Samples([time for time, _ in rows], [value for _, value in rows])
    quick, slow = RuleState(), RuleState()
    turns = rule_states.advance_threshold(bounds, quick, samples, hold=hold * SECOND, current_from=0)
    assert turns == advance(bounds, slow, rows, hold * SECOND)
    assert quick == slow


def at(*pairs: tuple[float, float]) -> Readings:
    return [(int(second * SECOND), value) for second, value in pairs]


@pytest.mark.parametrize(
    ("condition", "rows", "hold", "expected"),
    [
        (Threshold(above=70), at((1, 71), (2, 70), (3, 71)), 0, [(True, 1), (False, 2), (True, 3)]),
        (Threshold(below=5, clear_above=7), at((1, 4), (2, 6), (3, 7)), 0, [(True, 1), (False, 3)]),
        (Threshold(above=70), at((1, 71), (61, 71)), 60, [(True, 61)]),
        # A ramp of 2 a second, seen over at least 10 s; the rate needs a reading that old.
        (
            RateOfChange(above=1.5, per="second", window_seconds=10),
            at(*((n, 2.0 * n) for n in range(1, 15)), *((n, 28.0) for n in range(15, 30))),
            0,
            [(True, 11), (False, 17)],
        ),
        (StuckValue(), at((1, 5), (30, 5), (61, 5), (62, 6)), 60, [(True, 61), (False, 62)]),
        (StuckValue(), at((1, 5), (100, 5)), 60, []),  # two readings are not enough
        (StuckValue(tolerance=1), at(*((n, 5 + n % 2) for n in range(1, 80))), 60, [(True, 61)]),
    ],
)
def test_known_courses(condition: Condition, rows: Readings, hold: int, expected: list[tuple[bool, int]]) -> None:
    """What a person would expect of each kind of condition."""
    turns = advance(condition, RuleState(), rows, hold * SECOND)
    assert [(turn.fires, turn.at // SECOND) for turn in turns] == expected


def compared(condition: Comparison, left: Readings, right: Readings) -> list[tuple[bool, float | None]]:
    state = RuleState()
    sides = [Samples([t for t, _ in rows], [v for _, v in rows]) for rows in (left, right)]
    judged = rule_states.judge_comparison(condition, condition, state, sides[0], sides[1])
    return [(turn.fires, turn.value) for turn in rule_states.advance(state, judged, hold=0, current_from=0)]


def test_values_measured_far_apart_are_not_compared() -> None:
    """A series that stopped long ago says nothing of another one now, and a division by zero says nothing either."""
    difference = Comparison(other="b", above=10, apart_seconds=60)
    assert compared(difference, at((1, 50), (100, 90)), at((1, 45))) == []
    assert compared(difference, at((1, 50), (40, 90)), at((1, 45))) == [(True, 45.0)]
    ratio = Comparison(other="b", above=2, as_="ratio")
    assert compared(ratio, at((1, 5), (2, 5), (3, 5)), at((1, 0), (2, 2), (3, 4))) == [(True, 2.5), (False, 1.25)]


def simulate(step: Callable[[int], float], number: int) -> Readings:
    return at(*((n + 1, step(n)) for n in range(number)))


def test_what_is_remembered_is_bounded() -> None:
    """A rate over a day of readings each second remembers a few dozen of them."""
    state, condition = RuleState(), RateOfChange(above=1, window_seconds=86_400)
    rule_states.advance(
        state,
        rule_states.judge_rate(
            condition,
            condition,
            state,
            Samples(*map(list, zip(*simulate(float, 100_000), strict=True))),
        ),
        hold=0,
        current_from=0,
    )
    assert len(state.memory) <= 2 * (rule_states.POINTS + 2)
