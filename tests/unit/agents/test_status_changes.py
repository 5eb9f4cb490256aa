"""Status changes of agents, and when they are flapping."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.agents import status_changes

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@given(st.lists(st.integers(min_value=1, max_value=7200), max_size=30))
def test_flapping_is_six_changes_within_an_hour(gaps: list[int]) -> None:
    """For any times: as many of them are stored as the decision needs."""
    times: tuple[datetime, ...] = ()
    now, every = NOW, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        every.append(now)
        turns = status_changes.after_change(times, now, flapping=False)
        times = turns.times
        assert turns.flapping == (
            len([t for t in every if now - t < status_changes.FLAPPING_WINDOW]) >= status_changes.FLAPPING_CHANGES
        )
