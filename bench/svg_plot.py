"""Draws a series, its band, its score and its detections as a self-contained SVG file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 1200
HEIGHT: Final = 300
SCORE_HEIGHT: Final = 80
MARGIN: Final = 30
COLUMNS: Final = 350  # of each, at most three points are drawn: keeps a file below 100 kB
STYLE: Final = (
    ".event{fill:#fee}.band{fill:#cde8d0}.value,.score{fill:none;stroke:#246;stroke-width:1}.score{stroke:#999}"
    ".detection{fill:none;stroke:#c00;stroke-width:2}text{font:12px sans-serif}"
)


class Point(NamedTuple):
    at: float
    value: float
    low: float
    high: float
    score: float


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return the lowest, the highest and the highest-scored point of each column."""
    step = -(-len(points) // COLUMNS)
    kept: set[Point] = set()
    for first in range(0, len(points), step):
        part = points[first : first + step]
        kept |= {
            min(part, key=lambda p: p.value),
            max(part, key=lambda p: p.value),
            max(part, key=lambda p: p.score),
        }
    return sorted(kept)


def _path(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def write(
    file: Path, title: str, points: Sequence[Point], bound: float, events: Iterable[tuple[float, float]]
) -> None:
    """Write the drawing; `events` are the times (from, to) in which something is known to have happened."""
    begin, end = points[0].at, points[-1].at
    floor, top = min(p.value for p in points), max(p.value for p in points)
    floor, top = floor - 0.1 * (top - floor or 1), top + 0.1 * (top - floor or 1)
    foot = 2 * MARGIN + HEIGHT + SCORE_HEIGHT

    def x(at: float) -> float:
        return MARGIN + (at - begin) / (end - begin) * (WIDTH - 2 * MARGIN)

    def y(value: float) -> float:
        return MARGIN + (top - min(max(value, floor), top)) / (top - floor) * HEIGHT

    def score_y(score: float) -> float:
        return foot - score * SCORE_HEIGHT

    shown = _thinned(points)
    band = [(x(p.at), y(p.high)) for p in shown] + [(x(p.at), y(p.low)) for p in reversed(shown)]
    found = [p for p in points if p.score >= bound]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {foot + MARGIN}"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN}" y="20">{escape(title)}; green: the band, pink: the event, red: detections</text>',
        *(
            f'<path class="event" d="M{x(a):.1f} {MARGIN}V{foot}H{max(x(b), x(a) + 2):.1f}V{MARGIN}Z"/>'
            for a, b in events
        ),
        f'<polygon class="band" points="{_path(band)}"/>',
        f'<polyline class="value" points="{_path((x(p.at), y(p.value)) for p in shown)}"/>',
        f'<polyline class="score" points="{_path((x(p.at), score_y(p.score)) for p in shown)}"/>',
        *(f'<circle class="detection" cx="{x(p.at):.1f}" cy="{y(p.value):.1f}" r="5"/>' for p in found),
        *(
            f'<path class="detection" d="M{x(p.at):.1f} {foot}V{score_y(p.score):.1f}"/>'
            for p in found
        ),
        f'<text x="{MARGIN}" y="{foot + 18}">score, 0 to 1; red: {bound} or more</text>',
        "</svg>",
    ]  # fmt: skip
    file.write_text("\n".join(parts) + "\n")
