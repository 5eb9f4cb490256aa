"""The disk budget: levels, forecasts, and the days to drop first."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.disk_space import ALARM, DiskSpace
from iotistica.domain.telemetry.disk_budget import disk_level, drop_before, forecast, reserve
from iotistica.platform_alarms import Alarms

TODAY = date(2026, 11, 23)


def test_rollups_stop_before_readings_do() -> None:
    """Both stop while the database still has free space to clean up."""
    kept = reserve(100 << 30)
    assert [disk_level(free, kept) for free in (3 * kept, 2 * kept - 1, kept, kept - 1)] == [
        "ok",
        "low",
        "low",
        "short",
    ]
    assert reserve(1 << 30) == 256 << 20
    assert reserve(10 << 40) == 2 << 30


def test_a_forecast_is_of_the_last_week() -> None:
    """Rollups grow with the readings, today is not counted, and the budget can be full before the disk."""
    days = [(TODAY - timedelta(days=n), 100 if n < 8 else 1) for n in range(30)]
    readings = sum(size for _, size in days)
    assert forecast(days, readings, 2000, TODAY) == (200, 10.0, "disk")
    assert forecast([], 0, 2000, TODAY) == (0, None, None)
    for begun in (1, 2):  # on the day of the start and on the next, no day is a whole one
        assert forecast(days[:begun], 0, 2000, TODAY) == (0, None, None)
    assert forecast(days[:3], 0, 2000, TODAY) == (100, 20.0, "disk")
    assert forecast(days, 0, None, TODAY) == (100, None, None)
    assert forecast(days, 0, 2000, TODAY, readings + 500) == (100, 5.0, "budget")
    assert forecast(days, 0, 2000, TODAY, readings + 5000) == (100, 20.0, "disk")
    assert forecast(days, 0, None, TODAY, 1) == (100, 0.0, "budget")


@given(st.lists(st.integers(0, 1000), max_size=20), st.integers(0, 1000), st.integers(1, 20_000))
def test_no_more_days_go_than_must(sizes: list[int], rollups: int, most: int) -> None:
    """The oldest days are dropped first, no more than needed, and never today."""
    days = [(TODAY - timedelta(days=n), size) for n, size in enumerate(sizes)]
    before = drop_before(days, rollups, most, TODAY)
    left = [size for day, size in days if before is None or day >= before]
    if before is not None:
        assert before <= TODAY
        last = dict(days)[before - timedelta(days=1)]
        assert sum(left) + last + rollups > most
    if before != TODAY and len(left) > 1:
        assert sum(left) + rollups <= most


def test_a_full_disk_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm states what has stopped, and ends when there is free space again."""
    monkeypatch.setattr("iotistica.disk_space.CACHE_SECONDS", -1)
    alarms = Alarms()
    assert DiskSpace(tmp_path, alarms, kept=1).level() == "ok"
    assert DiskSpace(tmp_path, alarms, kept=1 << 60).level() == "short"
    assert "readings wait" in alarms.raised[ALARM]
    assert DiskSpace(tmp_path, alarms, kept=1).level() == "ok"
    assert not alarms.raised
    assert DiskSpace(None, alarms, kept=1 << 60).level() == "ok"
