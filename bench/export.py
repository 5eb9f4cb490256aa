"""Measures how fast the application exports ten million readings, and how much memory it needs for that.

    .venv/bin/python -m bench.export --keep FOLDER [--format csv|parquet|arrow] [--results FOLDER]

`--keep` is the folder of `bench.query --keep`, whose first agent has 10.5 million readings.
"""

import time
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from bench.report import argument_parser, publish
from bench.year import TENANT, stored_year
from tests.serving import Served


def resident(pid: int, field: str = "VmRSS") -> float:
    """Return the memory of a process in MiB: VmRSS is the current size, VmHWM the peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def main() -> None:
    """Export the readings of the first agent, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("--keep", required=True)
    parser.add_argument("--format", default="csv", choices=["csv", "parquet", "arrow"])
    options = parser.parse_args()
    server = Served(Path(options.keep)).start().ready(seconds=120)
    try:
        year = stored_year(server.runtime().database_url)
        assert year is not None, "The folder has no readings. Run bench.query with --keep first."
        headers = dict(server.login(TENANT).headers)
        headers.pop("accept-encoding", None)
        http = HTTPConnection("127.0.0.1", server.http_port)
        span = {"start": (year.end - timedelta(days=366)).isoformat(), "end": year.end.isoformat()}
        pid = server.runtime().pid
        before, began, size, lines = resident(pid), time.monotonic(), 0, 0
        path = f"/api/v1/readings/{year.agents[0]}/export?{urlencode(span | {'format': options.format})}"
        http.request("GET", path, headers=headers)
        answer = http.getresponse()
        assert answer.status == 200
        while part := answer.read(1 << 20):
            size += len(part)
            lines += part.count(b"\n")
        seconds = time.monotonic() - began
        rows = lines - 1 if options.format == "csv" else None
        peak = resident(pid, "VmHWM")
    finally:
        server.stop()
    figures = {
        "format": options.format,
        "rows": rows,
        "mb": size >> 20,
        "seconds": round(seconds, 1),
        "mib_before": round(before),
        "mib_peak": round(peak),
    }
    publish("export", options.results, figures)


if __name__ == "__main__":
    main()
