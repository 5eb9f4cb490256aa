"""Gap filling, downsampling, aggregates from partial sums, counter rates and time parsing."""

import math
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.telemetry.aggregates import Totals, finish, named
from iotistica.domain.telemetry.counter_rates import RateOptions, rates
from iotistica.domain.telemetry.downsampling import downsample, silences, thin_out
from iotistica.domain.telemetry.gap_filling import fill
from iotistica.domain.time_ranges import parse_time
from iotistica.errors import Invalid

START = datetime(2026, 1, 1, tzinfo=UTC)
NOON = START + timedelta(hours=12)
HOURS = [START + timedelta(hours=n) for n in range(6)]
SOME = {HOURS[1]: 1.0, HOURS[4]: 4.0}


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("null", [None, 1.0, None, None, 4.0, None]),
        ("previous", [None, 1.0, 1.0, 1.0, 4.0, 4.0]),
        ("linear", [None, 1.0, 2.0, 3.0, 4.0, None]),
    ],
)
def test_gaps_are_filled_as_asked(how: str, values: list[float | None]) -> None:
    """Buckets before the first value stay empty; with linear filling, also those after the last value."""
    assert [value for _, value in fill(HOURS, SOME, how)] == pytest.approx(values)  # type: ignore[arg-type]


finite = st.floats(-1e9, 1e9)


@given(st.lists(finite, max_size=300), st.integers(3, 60), st.sampled_from(["lttb", "minmax"]))
def test_fewer_points_are_points_of_the_line(values: list[float], most: int, method: str) -> None:
    """The kept points are in order, include both ends, stay within the limit, and with minmax include the extremes."""
    kept = downsample([float(n) for n in range(len(values))], values, most, method)  # type: ignore[arg-type]
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most, 0)
    if len(values) <= most:
        assert kept == list(range(len(values)))
        return
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    if method == "lttb":
        assert len(kept) == most
    elif most > 3:
        assert {max(values), min(values)} <= {values[at] for at in kept}


def runs_of(values: list[float | None], kept: list[int]) -> list[list[int]]:
    """Return the kept positions between kept gaps."""
    lines: list[list[int]] = [[]]
    for at in kept:
        if values[at] is None:
            lines.append([])
        else:
            lines[-1].append(at)
    return [line for line in lines if line]


@given(st.lists(st.none() | finite, max_size=200), st.integers(3, 60), st.sampled_from(["lttb", "minmax"]))
def test_gaps_stay_gaps(values: list[float | None], most: int, method: str) -> None:
    """Few gaps are all kept, with both ends of every line between them; many are reduced to the longest."""
    times = [float(n) for n in range(len(values))]
    kept = thin_out(times, values, most, method)  # type: ignore[arg-type]
    assert kept == sorted(set(kept))
    assert len(kept) <= most
    gaps = [at for at, value in enumerate(values) if value is None and (at == 0 or values[at - 1] is not None)]
    assert len([at for at in kept if values[at] is None]) == min(len(gaps), (most - 2) // 3)
    if len(gaps) <= (most - 2) // 3:
        lines = runs_of(values, [at for at, value in enumerate(values) if value is not None or at in gaps])
        assert [(line[0], line[-1]) for line in runs_of(values, kept)] == [(line[0], line[-1]) for line in lines]


def test_the_longest_gaps_are_kept() -> None:
    """With room for one gap, the line is drawn across the short one."""
    values = [1.0, 2.0, None, 3.0, 4.0, None, None, None, 5.0, 6.0]
    kept = thin_out([float(n) for n in range(10)], values, 5, "lttb")
    assert [at for at in kept if values[at] is None] == [5]
    assert {0, 4, 8, 9} & set(kept) >= {0, 9}


@pytest.mark.parametrize(
    ("times", "gaps"),
    [
        ([0, 60, 120, 3720, 3780], {3: 180}),
        ([0, 60, 120, 420, 480], {}),
        ([0, 60, 120, 421, 481], {3: 180}),
        ([0, 10], {}),
        ([], {}),
    ],
)
def test_a_gap_is_five_times_the_usual_step(times: list[float], gaps: dict[int, float]) -> None:
    """A gap begins where the next reading was missing."""
    assert silences(times) == gaps


def test_a_spike_survives_the_drawing() -> None:
    """A single high value among thousands is kept by both methods."""
    values = [0.0] * 5000
    values[1234] = 100.0
    for method in ("lttb", "minmax"):
        assert 1234 in downsample([float(n) for n in range(5000)], values, 50, method)


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 6)), min_size=1, max_size=50))
def test_a_spread_from_sums_is_that_of_the_values(values: list[float]) -> None:
    """The result from sums agrees with that from the values, or is None where rounding has lost its digits."""
    totals = {"n": len(values), "sum": math.fsum(values), "sum_sq": math.fsum(v * v for v in values)}
    totals |= {"min": min(values), "max": max(values), "count": len(values)}
    (got,) = finish(named("stddev"), {name: [value] for name, value in totals.items()})
    if len(values) < 2:
        assert got is None
        return
    expected = statistics.stdev(values)
    if got is None:
        assert expected <= 2e-6 * math.sqrt(totals["sum_sq"])
    else:
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-160)


def test_what_a_double_cannot_hold_is_no_value() -> None:
    """Rollups store sums that overflow as infinite; aggregates return None for them."""
    totals: Totals = {
        "n": [2],
        "sum": [math.inf],
        "sum_sq": [math.inf],
        "min": [-1e300],
        "max": [1e300],
        "count": [2],
    }
    values = [finish(named(name), totals) for name in ("sum", "avg", "stddev", "count")]
    assert values == [[None], [None], [None], [2.0]]


@pytest.mark.parametrize("name", ["", "mean", "p", "p0", "p100", "p1e1", "p-1", "avg;", "AVG"])
def test_an_unknown_aggregate_is_refused(name: str) -> None:
    """The error message lists the valid names."""
    with pytest.raises(Invalid, match="stddev"):
        named(name)


def test_a_counter_that_falls_has_begun_anew_or_gone_round() -> None:
    """`counter_max` decides between a reset and a wrap-around; neither results in a negative or a gigantic rate."""
    values = [65_500.0, 65_530.0, 14.0, 24.0]
    line = [(NOON + timedelta(seconds=10 * n), value) for n, value in enumerate(values)]

    def rates_with(**options: Any) -> list[float | None]:
        return [value for _, value in rates(line, RateOptions(**options))]

    assert rates_with() == [3.0, -6551.6, 1.0]
    assert rates_with(counter=True) == [3.0, 1.4, 1.0]
    assert rates_with(counter=True, counter_max=65_536) == [3.0, 2.0, 1.0]
    assert rates_with(counter=True, counter_max=2.0**53, reset_value=100) == [3.0, 1.4, 1.0]
    assert rates_with(counter=True, counter_max=100) == [3.0, 1.4, 1.0]


def test_a_time_without_a_zone_is_of_the_one_asked_for() -> None:
    """A time without an offset is in the requested zone; times outside the supported years are refused."""
    zurich = ZoneInfo("Europe/Zurich")

    def parsed(text: str, zone: ZoneInfo | None = zurich) -> datetime:
        return parse_time(text, now=NOON, default=NOON, path="start", zone=zone)

    assert parsed("2026-10-25") == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert parsed("2026-10-25T12:00") == datetime(2026, 10, 25, 11, tzinfo=UTC)
    assert parsed("2026-10-25T12:00Z") == datetime(2026, 10, 25, 12, tzinfo=UTC)
    assert parsed("2026-10-25", None) == datetime(2026, 10, 25, tzinfo=UTC)
    assert parsed("now") == NOON
    for text in ("739942d", "999999w", "1mo", "1899-12-31", "yesterday"):
        with pytest.raises(Invalid):
            parsed(text)
