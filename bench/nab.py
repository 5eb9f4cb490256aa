"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad, 2015) of a detector's scores, and its corpus.

One threshold holds for all series. In a labelled window only the first detection counts, and is worth the more the
earlier it comes; a window without one, and each detection outside, costs. 0 is a detector that never says anything,
100 one that detects at the very beginning of every window and nowhere else.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple


class Profile(NamedTuple):
    false_alarm: float
    missed_window: float


PROFILES: Final = {
    "standard": Profile(0.11, 1.0),
    "few false alarms": Profile(0.22, 1.0),
    "few misses": Profile(0.11, 2.0),
}
ROWS_TO_LEARN: Final = 750  # at most, and 15 % of a series: detections in them do not count


class Labelled(NamedTuple):
    name: str
    readings: list[tuple[float, float]]  # epoch seconds and value, in the order of the file
    windows: list[tuple[int, int]]  # first and last row

    @property
    def first_row(self) -> int:
        return min(int(0.15 * len(self.readings)), ROWS_TO_LEARN)


class Result(NamedTuple):
    score: float
    threshold: float
    hits: int
    windows: int
    false_alarms: int


def corpus(folder: Path) -> list[Labelled]:
    """Return the series of `<folder>/data`, labelled by `<folder>/combined_windows.json`, sorted by name."""
    labels = json.loads((folder / "combined_windows.json").read_text())
    return [_series(folder / "data", name, windows) for name, windows in sorted(labels.items())]


def _series(folder: Path, name: str, windows: list[list[str]]) -> Labelled:
    with (folder / name).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    stamps = [row[0] for row in rows]
    times = [datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp() for stamp in stamps]
    bounds = [(stamps.index(first.split(".")[0]), stamps.index(last.split(".")[0])) for first, last in windows]
    return Labelled(name, [(at, float(row[1])) for at, row in zip(times, rows, strict=True)], bounds)


def halves(series: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Return the series with even and those with odd numbers in the sorted list."""
    return series[0::2], series[1::2]


def _position(relative: float) -> float:
    """Return the worth of a detection: near 1 at a window's start (-1), 0 at its end (0), -1 long after it."""
    return 2 / (1 + math.exp(5 * relative)) - 1 if relative <= 3 else -1.0


def _worth(series: Labelled, row: int, profile: Profile) -> tuple[float, tuple[int, int] | None]:
    """Return what a detection at the row is worth, and the window that it is in."""
    before: tuple[int, int] | None = None
    for window in series.windows:
        first, last = window
        if first <= row <= last:
            return _position((row - last - 1) / (last - first + 1)) / _position(-1.0), window
        if last < row:
            before = window
    if before is None:
        return -profile.false_alarm, None
    return _position((row - before[1]) / max(before[1] - before[0], 1)) * profile.false_alarm, None


def best(series: Iterable[Labelled], scores: Mapping[str, list[float]], profile: Profile) -> Result:
    """Return the result at the threshold that is the best for all the series together."""
    rows: list[tuple[float, float, tuple[str, tuple[int, int]] | None]] = []
    windows = 0
    for one in series:
        windows += sum(last >= one.first_row for _, last in one.windows)
        for row in range(one.first_row, len(one.readings)):
            if (score := scores[one.name][row]) > 0:
                worth, window = _worth(one, row, profile)
                rows.append((score, worth, (one.name, window) if window else None))
    rows.sort(key=lambda row: -row[0])
    nothing = -profile.missed_window * windows
    total, false_alarms = nothing, 0
    found: dict[tuple[str, tuple[int, int]], float] = {}
    result = Result(0.0, math.inf, 0, windows, 0)
    for at, (score, worth, where) in enumerate(rows):
        if where is None:
            total += worth
            false_alarms += 1
        elif worth > (had := found.get(where, -profile.missed_window)):
            total += worth - had
            found[where] = worth
        relative = 100 * (total - nothing) / (windows - nothing) if windows else 0.0
        if (at + 1 == len(rows) or rows[at + 1][0] < score) and relative > result.score:
            result = Result(relative, score, len(found), windows, false_alarms)
    return result


def at(series: Iterable[Labelled], scores: Mapping[str, list[float]], profile: Profile, threshold: float) -> Result:
    """Return the result at a threshold; the score of a part without windows is 0."""
    windows, false_alarms = 0, 0
    points, outside, hits = 0.0, 0.0, 0
    for one in series:
        found = {window: -profile.missed_window for window in one.windows if window[1] >= one.first_row}
        for row in range(one.first_row, len(one.readings)):
            if scores[one.name][row] >= threshold:
                worth, window = _worth(one, row, profile)
                if window is None:
                    false_alarms, outside = false_alarms + 1, outside + worth
                else:
                    found[window] = max(found[window], worth)
        windows += len(found)
        hits += sum(worth > -profile.missed_window for worth in found.values())
        points += sum(found.values())
    nothing = -profile.missed_window * windows
    score = 100 * (points + outside - nothing) / (windows - nothing) if windows else 0.0
    return Result(score, threshold, hits, windows, false_alarms)
