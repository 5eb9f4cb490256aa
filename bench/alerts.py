"""Measures how well, and how fast, the detector finds anomalies in series in which they are known.

  .venv/bin/python -m bench.alerts [--weeks 4] [--seeds 5] [--plots FOLDER] [--tiny] [--results FOLDER]
  .venv/bin/python -m bench.alerts --nab FOLDER

Without --nab: made series, ordinary ones and with one event each; a reading each second, minute and five minutes.
With --nab: the Numenta Anomaly Benchmark. FOLDER has data/ and combined_windows.json of github.com/numenta/NAB.
"""

import gc
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench import known_series, nab, svg_plot
from bench.report import argument_parser, publish
from iotistica.domain.alerts.detector import Verdict, observe
from iotistica.domain.alerts.detector_state import DetectorState

Readings = list[tuple[float, float]]

BOUNDS: Final = (0.93, 0.9)  # scores from which a detection counts; the first is the product's default
WEEK: Final = 7 * known_series.DAY
ROUNDS: Final = 3  # of the measurement of speed, the best one counts
PLOTTED: Final = ("step", "season break", "growing noise")


def verdicts_of(readings: Iterable[tuple[float, float]]) -> list[Verdict | None]:
    state = DetectorState()
    return [observe(state, at, value) for at, value in readings]


def scores_of(readings: Iterable[tuple[float, float]]) -> list[float]:
    return [verdict.score if verdict else 0.0 for verdict in verdicts_of(readings)]


def cost(readings: Readings) -> dict[str, float]:
    """Return what a reading takes and what a series takes, as it is stored and as it lives in memory."""
    took = []
    for _ in range(ROUNDS):
        state = DetectorState()
        began = time.perf_counter()
        for at, value in readings:
            observe(state, at, value)
        took.append(time.perf_counter() - began)
    live = [state, *(one for one in gc.get_referents(state) if not isinstance(one, type))]
    return {
        "us_a_reading": round(min(took) / len(readings) * 1e6, 2),
        "stored_bytes_a_series": len(state.to_bytes()),
        "live_bytes_a_series": sum(map(sys.getsizeof, live)),
    }


def nab_figures(series: list[nab.Labelled]) -> dict[str, Any]:
    """Return the scores of the corpus and its halves, each at its best threshold, at the bounds, and by folder."""
    scores = {one.name: scores_of(one.readings) for one in series}
    even, odd = nab.halves(series)
    parts = {"whole": series, "even half": even, "odd half": odd}
    threshold = nab.best(series, scores, nab.PROFILES["standard"]).threshold
    folders: dict[str, list[nab.Labelled]] = {}
    for one in series:
        folders.setdefault(one.name.split("/", maxsplit=1)[0], []).append(one)
    return {
        "profiles": {
            name: {part: nab.best(chosen, scores, profile)._asdict() for part, chosen in parts.items()}
            for name, profile in nab.PROFILES.items()
        },
        "bounds": {
            str(bound): nab.at(series, scores, nab.PROFILES["standard"], bound)._asdict() for bound in BOUNDS
        },
        "folders at the standard threshold": {
            name: nab.at(part, scores, nab.PROFILES["standard"], threshold)._asdict()
            for name, part in folders.items()
        },
        "cost": cost(max((one.readings for one in series), key=len)),
    }


def false_alarms(kind: str, interval: int, weeks: int, seeds: int) -> dict[str, dict[str, float]]:
    """Return the detections a week in series in which nothing happens, of the first week and of later ones."""
    found = [
        (at, score)
        for seed in range(seeds)
        for readings in [known_series.ordinary(kind, interval, weeks, seed).readings]
        for (at, _), score in zip(readings, scores_of(readings), strict=True)
        if score >= min(BOUNDS)
    ]
    figures = {}
    for bound in BOUNDS:
        first = sum(score >= bound and at < known_series.BEGIN + WEEK for at, score in found)
        later = sum(score >= bound for _, score in found) - first
        figures[str(bound)] = {"first": first / seeds, "later": round(later / seeds / max(1, weeks - 1), 2)}
    return figures


def findings(event: str, interval: int, weeks: int, seeds: int) -> dict[str, dict[str, Any]]:
    """Return in how many of the series the event was found while it lasted, and the median minutes until then."""
    delays: dict[float, list[float]] = {bound: [] for bound in BOUNDS}
    for seed in range(seeds):
        series = known_series.with_event(event, interval, weeks, seed)
        begin, end = series.event or (0.0, 0.0)
        scored = zip(series.readings, scores_of(series.readings), strict=True)
        during = [((at - begin) / 60, score) for (at, _), score in scored if begin <= at < end]
        for bound in BOUNDS:
            delays[bound] += [delay for delay, score in during if score >= bound][:1]
    return {
        str(bound): {
            "found": len(delays[bound]),
            "series": seeds,
            "minutes": round(statistics.median(delays[bound])) if delays[bound] else None,
        }
        for bound in BOUNDS
    }


def known_figures(sizes: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
    """Return all figures of made series; `sizes` has weeks and seeds for each interval in seconds."""
    return {
        "false alarms a week": {
            kind: {f"{interval} s": false_alarms(kind, interval, *size) for interval, size in sizes.items()}
            for kind in known_series.ORDINARY
        },
        "events": {
            event: {f"{interval} s": findings(event, interval, *size) for interval, size in sizes.items()}
            for event in known_series.EVENTS
        },
        "cost": cost(
            known_series.ordinary("season", max(sizes), max(size[0] for size in sizes.values()), 0).readings
        ),
    }


def table(first: str, rows: Mapping[str, Mapping[str, object]]) -> str:
    """Return rows of figures as a table in Markdown."""
    columns = [first, *next(iter(rows.values()))]
    lines = [columns, ["---"] * len(columns)]
    for name, figures in rows.items():
        lines.append(
            [name, *(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in figures.values())]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def print_nab(figures: Mapping[str, Any]) -> None:
    profiles = figures["profiles"].items()
    print(table("profile", {f"{name}, {part}": row for name, parts in profiles for part, row in parts.items()}))
    print(table("standard, at the bound", figures["bounds"]))
    print(table("folder", figures["folders at the standard threshold"]))


def print_known(figures: Mapping[str, Any]) -> None:
    for bound in map(str, BOUNDS):
        rows = {
            kind: {
                f"{interval}, {week}": number for interval, by in part.items() for week, number in by[bound].items()
            }
            for kind, part in figures["false alarms a week"].items()
        }
        print(table(f"false alarms a week, score >= {bound}", rows))
    for bound in map(str, BOUNDS):
        rows = {
            event: {interval: _found(by[bound]) for interval, by in part.items()}
            for event, part in figures["events"].items()
        }
        print(table(f"found, score >= {bound}", rows))


def _found(figures: Mapping[str, Any]) -> str:
    after = "" if figures["minutes"] is None else f" after {figures['minutes']} min"
    return f"{figures['found']} of {figures['series']}{after}"


def draw(folder: Path, interval: int, weeks: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for event in PLOTTED:
        series = known_series.with_event(event, interval, weeks, 0)
        begin = series.readings[-1][0] - WEEK  # the last week is drawn
        points = [
            svg_plot.Point(at, value, verdict.low, verdict.high, verdict.score)
            for (at, value), verdict in zip(series.readings, verdicts_of(series.readings), strict=True)
            if verdict and at > begin
        ]
        file = folder / f"alerts-{event.replace(' ', '-')}.svg"
        svg_plot.write(
            file, f"{event}, one week of readings", points, BOUNDS[0], [series.event] if series.event else []
        )


def main() -> None:
    """Measure what was asked for, print tables, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("--nab", type=Path, metavar="FOLDER", help="score the benchmark's corpus in this folder")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write drawings of three series")
    parser.add_argument("--weeks", type=int, default=4, help="at least 2; read every second: 2")
    parser.add_argument("--seeds", type=int, default=5, help="series of each kind; read every second: 1")
    parser.add_argument(
        "--tiny", action="store_true", help="two weeks, read every half hour: to try the bench itself"
    )
    options = parser.parse_args()
    if options.nab:
        figures = nab_figures(nab.corpus(options.nab))
        print_nab(figures)
        publish("alerts_nab", options.results, figures)
        return
    size = (options.weeks, options.seeds)
    sizes = {1800: (2, 1)} if options.tiny else {300: size, 60: size, 1: (2, 1)}
    figures = known_figures(sizes)
    print_known(figures)
    if options.plots:
        draw(options.plots, max(sizes), sizes[max(sizes)][0])
    publish("alerts", options.results, figures)


if __name__ == "__main__":
    main()
