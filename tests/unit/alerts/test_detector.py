"""The detector of unusual readings: what it finds, what it leaves alone, and that its state can be carried on."""

import gc
import math
import random
import sys
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotistica.domain.alerts import detector_state
from iotistica.domain.alerts.detector import Verdict, observe
from iotistica.domain.alerts.detector_state import DetectorState

MONDAY = 1_772_409_600.0
HOUR, DAY = 3600.0, 86_400.0
BOUND = 0.9  # a score as a product might choose it

Readings = list[tuple[float, float]]

values = st.floats(-1e299, 1e299) | st.floats(-100, 100) | st.sampled_from([0.0, 1.0, -1e299, 1e299, 5e-324])
steps = st.floats(1e-6, 1e7) | st.sampled_from([1.0, 60.0, 300.0, 3600.0, 86_400.0])
series = st.lists(st.tuples(steps, values), min_size=1, max_size=150)


def run(state: DetectorState, readings: Iterable[tuple[float, float]]) -> list[Verdict | None]:
    return [observe(state, at, value) for at, value in readings]


def timed(rows: Iterable[tuple[float, float]]) -> Readings:
    at, out = MONDAY, []
    for step, value in rows:
        at += step
        out.append((at, value))
    return out


def every(seconds: float, of: Iterable[float]) -> Readings:
    return [(MONDAY + i * seconds, value) for i, value in enumerate(of)]


def noisy_days(days: float, interval: float = 300.0, seed: int = 1, noise: float = 0.5) -> Readings:
    dice = random.Random(seed)
    times = (MONDAY + i * interval for i in range(int(days * DAY / interval)))
    return [(at, 20 + 10 * math.sin(2 * math.pi * at / DAY) + dice.gauss(0, noise)) for at in times]


def meter(days: float, interval: float, seed: int = 1) -> Readings:
    """A meter of energy that is used more by day than at night."""
    dice, total, out = random.Random(seed), 52_000.0, []
    for i in range(int(days * DAY / interval)):
        at = MONDAY + i * interval
        total += interval / 60 * (2 + math.sin(2 * math.pi * at / DAY)) * dice.uniform(0.8, 1.2)
        out.append((at, total))
    return out


def detections(readings: Readings, bound: float = BOUND) -> list[float]:
    verdicts = run(DetectorState(), readings)
    return [at for (at, _), verdict in zip(readings, verdicts, strict=True) if verdict and verdict.score >= bound]


def between(times: list[float], begin: float, end: float) -> list[float]:
    return [at for at in times if begin <= at < end]


def share_in_band(readings: Readings, last: int) -> float:
    verdicts = run(DetectorState(), readings)[-last:]
    inside = [
        verdict is not None and verdict.low <= value <= verdict.high
        for (_, value), verdict in zip(readings[-last:], verdicts, strict=True)
    ]
    return sum(inside) / len(inside)


def live_size(state: DetectorState) -> int:
    parts = (one for one in gc.get_referents(state) if not isinstance(one, type))
    return sum(map(sys.getsizeof, (state, *parts)))


@given(series, st.data())
def test_resumes_from_bytes(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    """A run that is cut anywhere and continued from the bytes of its state gives the same verdicts and bytes."""
    readings = timed(rows)
    cut = data.draw(st.integers(0, len(readings)))
    whole, first = DetectorState(), DetectorState()
    expected = run(whole, readings)
    verdicts = run(first, readings[:cut])
    second = DetectorState.from_bytes(first.to_bytes())
    assert verdicts + run(second, readings[cut:]) == expected
    assert second.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize(
    "readings",
    [noisy_days(21), noisy_days(1.2, 5.0), meter(4, 60.0), every(300, [1.0] * 700 + [2.0] * 700)],
    ids=["season", "fast", "meter", "flat"],
)
def test_resumes_a_long_run(readings: Readings) -> None:
    """The same holds for long runs of every kind that are carried over from bytes at every 37th reading."""
    carried = DetectorState()
    verdicts: list[Verdict | None] = []
    for begin in range(0, len(readings), 37):
        carried = DetectorState.from_bytes(carried.to_bytes())
        verdicts += run(carried, readings[begin : begin + 37])
    whole = DetectorState()
    assert run(whole, readings) == verdicts
    assert whole.to_bytes() == carried.to_bytes()


@pytest.mark.parametrize("data", [b"", bytes(1000), bytes(len(DetectorState().to_bytes())), bytes(2048)])
def test_refuses_bytes_that_are_no_state(data: bytes) -> None:
    """Bytes of another size or layout are refused, not misread."""
    with pytest.raises(ValueError, match="a state of"):
        DetectorState.from_bytes(data)


@given(series)
def test_keeps_numbers_finite(rows: list[tuple[float, float]]) -> None:
    """Whatever the values and the intervals, the state and the verdicts hold finite numbers, and scores 0 to 1."""
    state = DetectorState()
    for verdict in run(state, timed(rows)):
        assert verdict is not None
        assert 0.0 <= verdict.score <= 1.0
        assert verdict.low <= verdict.high
        assert all(map(math.isfinite, verdict))
    assert all(map(math.isfinite, state.numbers))
    assert all(map(math.isfinite, state.counts))


@given(st.lists(st.floats(0, 1e299), min_size=250, max_size=250), st.sampled_from([-1e299, 0.0, 1.0, 9e298, 1e299]))
@settings(max_examples=30)
def test_keeps_numbers_of_counters_finite(totals: list[float], then: float) -> None:
    """The same holds for a counter of any size, whatever follows it."""
    state = DetectorState()
    readings = every(900, [*range(150), *sorted(totals), then, 0.0, 1.0])
    assert all(verdict and all(map(math.isfinite, verdict)) for verdict in run(state, readings))
    assert all(map(math.isfinite, state.numbers))


@given(series, st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 1e300, -1e300]))
def test_ignores_what_is_no_number(rows: list[tuple[float, float]], value: float) -> None:
    """A value that is NaN, infinite or too large gets no verdict, and leaves the state as it was, byte for byte."""
    state = DetectorState()
    assert observe(state, MONDAY, value) is None
    run(state, timed(rows))
    before = state.to_bytes()
    assert observe(state, MONDAY + 1e10, value) is None
    assert state.to_bytes() == before


@given(series, st.sampled_from([0.0, 1e-6, 1.0, 1e9, math.nan, math.inf, -math.inf]))
def test_ignores_what_is_not_later(rows: list[tuple[float, float]], earlier: float) -> None:
    """A reading that is not later than the last one, or at no time at all, changes nothing."""
    state, readings = DetectorState(), timed(rows)
    run(state, readings)
    before = state.to_bytes()
    at = readings[-1][0] - earlier if earlier >= 0 and math.isfinite(earlier) else earlier
    assert observe(state, at, 1.0) is None
    assert state.to_bytes() == before


@pytest.mark.parametrize("at", [-1e-20, -DAY, math.nextafter(DAY, 0), 0.0, 1e11])
def test_takes_any_time_of_day(at: float) -> None:
    """Times before 1970, and a hair before midnight, have a half hour of the day as well."""
    assert observe(DetectorState(), at, 1.0) == Verdict(0.0, 1.0, 1.0, 1.0)


@given(series, series)
@settings(max_examples=30)
def test_does_not_look_ahead(rows: list[tuple[float, float]], more: list[tuple[float, float]]) -> None:
    """What follows does not change the verdicts of what came before."""
    short, long = timed(rows), timed(rows + more)
    assert run(DetectorState(), long)[: len(short)] == run(DetectorState(), short)


def test_state_stays_small() -> None:
    """A state takes at most 2 kB, as bytes and in memory, also while residuals wait for their unit."""
    state = DetectorState()
    for at, value in noisy_days(3):
        observe(state, at, value)
        assert len(state.to_bytes()) <= detector_state.LARGEST_SIZE <= 2048
    assert live_size(state) <= 2048
    assert len(state.to_bytes()) == len(DetectorState().to_bytes())


def test_runs_for_years() -> None:
    """Twelve years of hourly readings neither enlarge the state nor drive a number away."""
    state, dice = DetectorState(), random.Random(3)
    size = len(state.to_bytes())
    for hour in range(12 * 365 * 24):
        observe(state, MONDAY + hour * HOUR, 5 + dice.gauss(0, 1))
    assert len(state.to_bytes()) == size
    assert all(abs(number) < 1e10 for number in state.numbers)
    assert all(count < 2**24 for count in state.counts)  # beyond, adding 1 to a float32 changes nothing


@given(st.floats(-1e6, 1e6), st.sampled_from([1.0, 60.0, 3600.0]))
@settings(max_examples=10)
def test_is_silent_about_a_constant(value: float, interval: float) -> None:
    """A value that never changes is never reported, and the band is that value."""
    assert all(
        verdict == Verdict(0.0, value, value, value)
        for verdict in run(DetectorState(), every(interval, [value] * 1500))
    )


@pytest.mark.parametrize("move", [0.001, -1.0, 1e-9, 1e6])
def test_reports_the_first_move_of_a_constant(move: float) -> None:
    """A series whose deviation was 0 is reported when it moves, at once, however little; at most once more later."""
    readings = every(300, [42.0] * 2000 + [42.0 + move] * 100)
    found = detections(readings)
    assert found[0] == readings[2000][0]
    assert len(found) <= 2


@pytest.mark.parametrize("jump", [15.0, -15.0])
@pytest.mark.parametrize("interval", [60.0, 300.0])
def test_reports_a_step_and_learns_it(jump: float, interval: float) -> None:
    """A step is detected at once, and at most once more; a day later the values at the new level lie in the band."""
    readings = noisy_days(23.5, interval)
    begin = MONDAY + 21.5 * DAY
    moved = [(at, value + jump * (at >= begin)) for at, value in readings]
    found = between(detections(moved), begin, begin + 2 * DAY)
    assert found[0] == begin
    assert len(found) <= 2
    assert share_in_band(moved, int(DAY / interval)) > 0.97


def test_knows_the_time_of_day() -> None:
    """A value that is common at 6:00 is reported at 18:00, after three weeks of that season."""
    readings = noisy_days(22)
    begin = MONDAY + 21 * DAY + 18 * HOUR
    odd = [(at, 30.0 if begin <= at < begin + HOUR else value) for at, value in readings]
    assert between(detections(odd), begin, begin + HOUR)


def test_says_nothing_on_the_first_two_days() -> None:
    """Until the season has been seen twice nothing is reported, not even a spike; on the third day a spike is."""
    readings = noisy_days(3)
    at_noon = [i for i, (at, _) in enumerate(readings) if at % DAY == DAY / 2]
    for i in at_noon:
        readings[i] = (readings[i][0], 100.0 * i)
    assert detections(readings) == [readings[at_noon[2]][0]]


@pytest.mark.parametrize("seed", range(3))
def test_gives_few_false_alarms(seed: int) -> None:
    """Six weeks of a season with noise give at most one report every two weeks."""
    assert len(detections(noisy_days(42, seed=seed))) <= 3


def test_copes_with_readings_each_second() -> None:
    """Three days of correlated noise, each second, give no report, a spike of 2 s one within a minute."""
    dice, noise, readings = random.Random(2), 0.0, []
    for i in range(3 * 86_400):
        noise = 0.95 * noise + dice.gauss(0, 0.3)
        readings.append((MONDAY + i, 20 + 5 * math.sin(2 * math.pi * i / DAY) + noise))
    begin = MONDAY + 2.5 * DAY
    odd = [(at, value + 40 * (begin <= at < begin + 2)) for at, value in readings]
    found = detections(odd)
    assert len(found) == 1
    assert begin <= found[0] < begin + 60


def test_judges_a_punctual_minute_at_once() -> None:
    """A spike in a series that is read every minute, give or take 5 s, is reported with its own reading."""
    dice = random.Random(4)
    readings = [(at + dice.uniform(-5, 5), value) for at, value in noisy_days(8, 60.0)]
    odd = [(at, value + 40 * (i == 11_000)) for i, (at, value) in enumerate(readings)]
    assert readings[11_000][0] in detections(odd)


@pytest.mark.parametrize("interval", [60.0, 300.0, 900.0])
def test_judges_the_increase_of_a_counter(interval: float) -> None:
    """A meter has no false alarm when it is recognised, nor later at its resets; a burst of consumption is found."""
    readings = meter(21, interval)
    reset = [(at, value - 60_000.0 if value >= 60_000.0 else value) for at, value in readings]
    assert reset != readings
    assert len(detections(reset)) <= 1
    begin = MONDAY + 20 * DAY
    burst = [
        (at, value + max(0.0, min(at - begin, 2 * HOUR) + interval) * 0.3 * (at >= begin)) for at, value in reset
    ]
    assert between(detections(burst), begin, begin + HOUR)


def test_notices_a_counter_that_stops() -> None:
    """A meter that stands still at noon is reported within hours."""
    readings = meter(21, 300.0)
    begin = MONDAY + 20.2 * DAY
    stood = next(value for at, value in readings if at >= begin)
    stopped = [(at, min(value, stood)) for at, value in readings]
    assert between(detections(stopped), begin, begin + 6 * HOUR)


def test_expects_a_counter_to_go_on() -> None:
    """The band of a counter is where its next total should be, and a regular counter has no false alarms."""
    readings = every(60, (0.1 * i for i in range(30_000)))
    state = DetectorState()
    verdicts = run(state, readings)
    assert verdicts[-1] is not None
    assert verdicts[-1].expected == pytest.approx(readings[-1][1])
    assert verdicts[-1].low <= readings[-1][1] + 1e-6
    assert all(verdict is not None and verdict.score < BOUND for verdict in verdicts)


def test_returns_from_a_counter_to_a_level() -> None:
    """A level that rose for days, and was taken for a counter, is a level again when it falls, without an alarm."""
    dice = random.Random(8)
    up = [i + dice.uniform(0, 0.5) for i in range(1000)]
    down = [1000 - 0.1 * i + dice.uniform(0, 0.5) for i in range(2000)]
    readings = every(300, up + down)
    verdict = run(DetectorState(), readings)[-1]
    assert verdict is not None
    assert abs(verdict.expected - down[-1]) < 60
    assert len(detections(readings)) <= 1


def test_notices_the_drop_of_a_ramp() -> None:
    """A ramp that only rises still has its drop to half reported."""
    readings = every(300, [100 + 0.01 * i - (75 if i >= 5000 else 0) for i in range(5100)])
    assert detections(readings) == [readings[5000][0]]


def test_leaves_switching_alone() -> None:
    """A pump that is on and off at random gives few reports, is no counter, and is reported when it stays on."""
    dice, state, readings = random.Random(7), 0.0, []
    for i in range(28 * 288):
        if dice.random() < 0.15:
            state = 1 - state
        readings.append((MONDAY + i * 300, state))
    assert len(detections(readings)) <= 4
    begin = MONDAY + 25 * DAY
    stuck = [(at, 1.0 if begin <= at < begin + DAY else value) for at, value in readings]
    assert between(detections(stuck), begin, begin + DAY)


def test_notices_drift() -> None:
    """A slow drift of a fifth of the noise an hour is reported within three days."""
    readings = noisy_days(35)
    begin = MONDAY + 28 * DAY
    drifting = [(at, value + max(0.0, at - begin) / HOUR * 0.1) for at, value in readings]
    assert between(detections(drifting, 0.85), begin, begin + 3 * DAY)


def test_adapts_to_more_noise() -> None:
    """When the noise grows for good to the fivefold, the band holds it two days later."""
    readings = noisy_days(14) + [(at + 14 * DAY, value) for at, value in noisy_days(3, noise=2.5, seed=2)]
    assert share_in_band(readings, 288) > 0.97
    assert between(detections(readings), MONDAY + 14 * DAY, MONDAY + 15 * DAY)


@pytest.mark.parametrize("nonsense", [65_535.0, -9999.0, 1e12])
@pytest.mark.parametrize("interval", [10.0, 300.0])
def test_forgets_a_nonsense_value(nonsense: float, interval: float) -> None:
    """A single nonsense value is reported; two days later the band is as wide as ever, and a spike is a record again."""
    readings = noisy_days(12, interval)
    wrong, spike = (
        next(i for i, (at, _) in enumerate(readings) if at >= MONDAY + day * DAY) for day in (8.6, 11.3)
    )
    readings[wrong] = readings[wrong][0], nonsense
    readings[spike] = readings[spike][0], 80.0
    found = detections(readings)
    assert between(found, readings[wrong][0], readings[wrong][0] + 60)
    assert between(found, readings[spike][0], readings[spike][0] + 60)
    verdict = run(DetectorState(), readings[: spike - 1])[-1]
    assert verdict is not None
    assert verdict.high - verdict.low < 20 * 0.5


@pytest.mark.parametrize("hours", [3, 12, 30, 400])
def test_forgives_a_gap(hours: int) -> None:
    """After hours or weeks without readings, the series goes on without a report at the gap."""
    for seed in range(3):
        readings = [
            (a, v) for a, v in noisy_days(40, seed=seed) if not 0 < a - (MONDAY + 21.2 * DAY) < hours * HOUR
        ]
        resumed = MONDAY + 21.2 * DAY + hours * HOUR
        assert between(detections(readings), resumed, resumed + 6 * HOUR) == []


def test_copes_with_irregular_times() -> None:
    """Readings that come seconds to hours apart are judged by their time of day, with few reports."""

    def times() -> Iterator[float]:
        at = MONDAY
        while (at := at + dice.choice([1.0, 5.0, 60.0, 600.0, 3600.0])) < MONDAY + 60 * DAY:
            yield at

    dice = random.Random(11)
    readings = [(at, 20 + 10 * math.sin(2 * math.pi * at / DAY) + dice.gauss(0, 0.5)) for at in times()]
    assert len(detections(readings)) <= 6


def test_has_one_high_point_in_an_episode() -> None:
    """A strange hour gives one score above the bound, all others are at most half."""
    readings = noisy_days(22)
    begin = MONDAY + 21 * DAY
    strange = [(at, 60.0 if begin <= at < begin + HOUR else value) for at, value in readings]
    verdicts = run(DetectorState(), strange)
    scores = [v.score for (at, _), v in zip(strange, verdicts, strict=True) if v and begin <= at < begin + DAY]
    assert scores[0] > BOUND
    assert all(score <= 0.5 for score in scores[1:])


@pytest.mark.parametrize("interval", [60.0, 300.0])
def test_has_a_band_as_wide_as_the_noise(interval: float) -> None:
    """After three weeks almost every value is in the band, and the band is 5 to 12 standard deviations wide."""
    state, readings = DetectorState(), noisy_days(21, interval)
    verdict = run(state, readings)[-1]
    assert verdict is not None
    assert 5 * 0.5 < verdict.high - verdict.low < 12 * 0.5
    assert share_in_band(readings, int(7 * DAY / interval)) > 0.99
