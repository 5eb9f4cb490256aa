"""Filling, drawing with fewer points, and what aggregates make of sums."""

import math
import statistics
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.aggregates import finish, named
from iotistica.domain.downsampling import downsample
from iotistica.domain.filling import fill
from iotistica.errors import Invalid

START = datetime(2026, 1, 1, tzinfo=UTC)
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
    """Nothing is made up before the first value, nor after the last on a line."""
    assert [value for _, value in fill(HOURS, SOME, how)] == pytest.approx(values)  # type: ignore[arg-type]


finite = st.floats(-1e9, 1e9)


@given(st.lists(finite, max_size=300), st.integers(3, 60), st.sampled_from(["lttb", "minmax"]))
def test_fewer_points_are_points_of_the_line(values: list[float], most: int, method: str) -> None:
    """In order, the ends among them, and never more than asked for; the extremes too where that is the method."""
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


def test_a_spike_survives_the_drawing() -> None:
    """A single value among thousands is what somebody looks for."""
    values = [0.0] * 5000
    values[1234] = 100.0
    for method in ("lttb", "minmax"):
        assert 1234 in downsample([float(n) for n in range(5000)], values, 50, method)  # type: ignore[arg-type]


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 6)), min_size=1, max_size=50))
def test_a_spread_from_sums_is_that_of_the_values(values: list[float]) -> None:
    """Or unknown, where the sums have lost its digits."""
    totals = {"n": len(values), "sum": math.fsum(values), "sum_sq": math.fsum(v * v for v in values)}
    totals |= {"min": min(values), "max": max(values), "count": len(values)}
    (got,) = finish(named("stddev"), {name: [value] for name, value in totals.items()})
    if len(values) < 2:
        assert got is None
        return
    wanted = statistics.stdev(values)
    if got is None:
        assert wanted <= 2e-6 * math.sqrt(totals["sum_sq"])
    else:
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-160)


def test_what_a_double_cannot_hold_is_no_value() -> None:
    """Infinite sums stand for it in the rollups; nobody is shown them."""
    totals = {"n": [2], "sum": [math.inf], "sum_sq": [math.inf], "min": [-1e300], "max": [1e300], "count": [2]}
    values = [finish(named(name), totals) for name in ("sum", "avg", "stddev", "count")]
    assert values == [[None], [None], [None], [2.0]]


@pytest.mark.parametrize("name", ["", "mean", "p", "p0", "p100", "p1e1", "p-1", "avg;", "AVG"])
def test_an_unknown_aggregate_is_refused(name: str) -> None:
    """With the names of those there are."""
    with pytest.raises(Invalid, match="stddev"):
        named(name)
