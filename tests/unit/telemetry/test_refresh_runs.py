"""What the refreshes of minutes, hours and days have included together."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.telemetry.refresh_runs import RefreshRun, included_before

START = datetime(2026, 1, 1, tzinfo=UTC)


def runs(*spans: tuple[int, int]) -> list[RefreshRun]:
    return [RefreshRun(START + timedelta(seconds=a), START + timedelta(seconds=b)) for a, b in spans]


def test_a_chain_of_three_includes_what_was_there_when_it_began() -> None:
    """Each refresh has to start after the one that it reads has finished."""
    assert included_before(runs((0, 1)), runs((5, 6)), runs((10, 11))) == START
    assert included_before(runs((0, 1), (15, 16)), runs((5, 6), (20, 21)), runs((10, 11))) == START
    assert included_before(runs((0, 7)), runs((5, 6)), runs((10, 11))) is None
    assert included_before(runs((0, 1)), runs((5, 12)), runs((10, 11))) is None
    assert included_before(runs(), runs((5, 6)), runs((10, 11))) is None


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=6).map(
    lambda pairs: runs(*((start, start + length) for start, length in sorted(pairs)))
)


@given(spans, spans, spans)
def test_the_answer_is_the_start_of_the_latest_chain(
    minutes: list[RefreshRun], hours: list[RefreshRun], days: list[RefreshRun]
) -> None:
    """No chain of three runs begins later, whatever the runs are."""
    chains = [
        minute.started
        for minute in minutes
        for hour in hours
        for day in days
        if minute.finished <= hour.started and hour.finished <= day.started
    ]
    found = included_before(minutes, hours, days)
    assert (found is None) == (not chains)
    assert found is None or found in chains
