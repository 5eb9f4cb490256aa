"""Runs of the three refreshes of TimescaleDB, and what they have included together."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class RefreshRun(NamedTuple):
    """A refresh that succeeded."""

    started: datetime
    finished: datetime


def included_before(
    minutes: Sequence[RefreshRun], hours: Sequence[RefreshRun], days: Sequence[RefreshRun]
) -> datetime | None:
    """Return the time before which everything committed is in minutes, hours and days; None if unknown.

    A refresh includes what was committed before it started; the one of hours reads the minutes, and the one of days
    reads the hours, so each has to start after the one before it has finished. Each sequence is in order of time.
    """
    for day in reversed(days):
        for hour in reversed(hours):
            if hour.finished > day.started:
                continue
            for minute in reversed(minutes):
                if minute.finished <= hour.started:
                    return minute.started
    return None
