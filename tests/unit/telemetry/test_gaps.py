"""Late hours that one query reads around."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iotistica.storage.telemetry.coverage import GAPS_LIMIT, HOUR, _of_newest_gaps

START = datetime(2026, 11, 1, tzinfo=UTC)


@given(st.sets(st.integers(0, 60)))
def test_the_newest_gaps_are_read_around(numbers: set[int]) -> None:
    """Whole gaps, the newest ones, and all of them unless there are too many."""
    hours = [START + timedelta(hours=number) for number in sorted(numbers)]
    kept = list(_of_newest_gaps(hours))
    assert kept == hours[len(hours) - len(kept) :]
    gaps = bool(kept) + sum(after - before > HOUR for before, after in pairwise(kept))
    assert gaps <= GAPS_LIMIT
    if kept != hours:
        assert gaps == GAPS_LIMIT
        assert kept[0] - hours[len(hours) - len(kept) - 1] > HOUR  # no gap is cut
