"""The table of docs/delivery.md, from the rows of a run."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.plant import Row

BEGIN: Final = "<!-- written by ./run test --chaos -->\n"
END: Final = "<!-- end -->\n"
HEAD: Final = (
    "| fault | times | published | acknowledged to the publisher | acknowledged by the platform | stored"
    " | delivered again | lost (publisher) | lost (platform) | stored twice | last row after |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def text(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    lines = [
        f"| {row.name} | {row.times} | {row.published:,} | {row.acked_to_publisher:,} | {row.acked_by_platform:,}"
        f" | {row.stored:,} | {row.duplicate:,} | {row.lost_by_publisher:,} | {row.lost_by_platform:,}"
        f" | {row.stored_twice:,} | {row.seconds:.1f} s |\n"
        for row in rows
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return HEAD + "".join(lines) + f"\nMeasured on {machine}, shared with others, everything on one machine.\n"


def write(page: Path, rows: Sequence[Row]) -> None:
    """Put the table in its place on the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(before + BEGIN + text(rows) + END + after)
