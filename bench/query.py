"""Measures how long the queries of a dashboard take over a year of readings, compared with bare SQL.

    .venv/bin/python -m bench.query [--days 365] [--agents 5] [--series 20] [--rounds 200] [--keep FOLDER]
                                    [--results FOLDER]

Makes the year (52 million readings, one a minute) with SQL, lets the application roll it up, and then runs each
query in turn in three ways: over HTTP, with the functions that the routes call, and as bare SQL on the same source.
With --keep the database stays in that folder and is used by the next run. The first run takes about half an hour
and 25 GB.
"""

import contextlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psycopg
import uvloop

from bench.report import argument_parser, publish
from bench.year import SIZES, TENANT, Year, load, roll_up, stored_year
from iotistica.domain.telemetry import aggregates as rules
from iotistica.domain.telemetry.query_plans import plan_query
from iotistica.domain.telemetry.rollup_sources import LONG_AGO
from iotistica.domain.time_ranges import parse_interval, parse_zone
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import aggregates, catalog, coverage, latest, timeseries
from tests.serving import Served, new_data_folder

ZONE = "Europe/Zurich"


class Question(NamedTuple):
    name: str
    path: str
    parameters: dict[str, Any]
    bare: str
    ask: Callable[[Database], Awaitable[object]]


def questions(year: Year) -> list[Question]:
    """What a dashboard asks, in the three ways; `ask` is what the route does between guard and encoding."""
    agent, metric, end = year.agents[0], "plc.metric2", year.end
    own = f"agent_uuid = '{agent}' AND metric_name = '{metric}'"

    def bounds(column: str, start: datetime) -> str:
        return f"{own} AND {column} >= '{start.isoformat()}' AND {column} < '{end.isoformat()}'"

    async def raw(database: Database) -> object:
        async with database.transaction(year.tenant) as tx:
            await coverage.of_agent(tx, year.tenant, agent, end - timedelta(hours=1), end)
            return await timeseries.raw_readings(
                tx, year.tenant, agent, metric, start=end - timedelta(hours=1), end=end, limit=10_001
            )

    def bucketed(width: str, start: datetime, tz: str | None) -> Callable[[Database], Awaitable[object]]:
        async def ask(database: Database) -> object:
            async with database.transaction(year.tenant) as tx:
                store = await coverage.of_agent(tx, year.tenant, agent, start, end)
                assert store is not None
                wanted = [rules.named("avg")]
                how = plan_query(parse_interval(width), start, end, wanted, store, zone=parse_zone(tz))
                series = [(agent, metric)]
                return await aggregates.buckets(
                    tx, year.tenant, series, how.grid, how.segments, wanted, limit=20_000
                )

        return ask

    async def newest(database: Database) -> object:
        now = datetime.now(UTC)
        async with database.transaction(year.tenant) as tx:
            store = await coverage.of_agent(tx, year.tenant, agent, LONG_AGO, now)
            assert store is not None
            since = now - timedelta(days=9999)
            names = await latest.series_names(tx, year.tenant, agent, only=None, after=None, limit=1001)
            return await latest.latest(
                tx, year.tenant, agent, names, now=now, since=since, late_hours=store.late_hours
            )

    async def catalogue(database: Database) -> object:
        async with database.transaction(year.tenant) as tx:
            return await catalog.page(
                tx, year.tenant, {}, after=None, now=datetime.now(UTC), since=LONG_AGO, limit=101
            )

    def series(start: datetime, width: str | None, tz: str | None = None) -> dict[str, Any]:
        asked = {"metric": metric, "start": start.isoformat(), "end": end.isoformat(), "interval": width, "tz": tz}
        return {name: value for name, value in asked.items() if value is not None}

    recent = (end - timedelta(days=1)).isoformat()
    day, month, year_ = (end - timedelta(days=days) for days in (1, 30, 365))
    path = f"/readings/{agent}/timeseries"
    return [
        Question(
            "latest of 20 series",
            f"/readings/{agent}/latest",
            {},
            "SELECT r.* FROM series s CROSS JOIN LATERAL (SELECT * FROM readings r"
            " WHERE r.agent_uuid = s.agent_uuid"
            f" AND r.metric_name = s.metric_name AND r.time >= '{recent}' AND r.time < '{end.isoformat()}'"
            f" ORDER BY r.time DESC LIMIT 1) r WHERE s.agent_uuid = '{agent}'",
            newest,
        ),
        Question(
            "last hour, single readings",
            path,
            series(end - timedelta(hours=1), None),
            f"SELECT * FROM readings WHERE {bounds('time', end - timedelta(hours=1))} ORDER BY time",
            raw,
        ),
        Question(
            "24 hours by the minute",
            path,
            series(day, "1m"),
            f"SELECT bucket, sum / nullif(n, 0), count FROM readings_1m WHERE {bounds('bucket', day)} ORDER BY 1",
            bucketed("1m", day, None),
        ),
        Question(
            "30 days by the hour",
            path,
            series(month, "1h"),
            f"SELECT bucket, sum / nullif(n, 0), count FROM readings_1h WHERE {bounds('bucket', month)} ORDER BY 1",
            bucketed("1h", month, None),
        ),
        Question(
            "a year by the day of a zone",
            path,
            series(year_, "1d", ZONE),
            f"SELECT date_trunc('day', bucket, '{ZONE}'), sum(sum) / nullif(sum(n), 0), sum(count) FROM readings_1h"
            f" WHERE {bounds('bucket', year_)} GROUP BY 1 ORDER BY 1",
            bucketed("1d", year_, ZONE),
        ),
        Question(
            "catalog of 100 series",
            "/metrics/catalog",
            {},
            "SELECT s.*, (SELECT min(bucket) FROM readings_daily d WHERE d.agent_uuid = s.agent_uuid AND"
            " d.metric_name = s.metric_name), (SELECT max(time) FROM readings r"
            " WHERE r.agent_uuid = s.agent_uuid AND"
            f" r.metric_name = s.metric_name AND r.time >= '{recent}' AND r.time < '{end.isoformat()}')"
            f" FROM series s WHERE tenant_id = '{year.tenant}' ORDER BY agent_uuid, metric_name LIMIT 100",
            catalogue,
        ),
    ]


async def measure(server: Served, owner: str, year: Year, rounds: int) -> list[dict[str, Any]]:
    """Each question, one way after the other within each round."""
    headers = dict(server.login(TENANT).headers)
    headers.pop("accept-encoding", None)  # the bytes are read as they come
    http = HTTPConnection("127.0.0.1", server.http_port)  # a client that costs next to nothing
    database = Database(owner, size=2, name="bench", role="iotistica_api", statement_seconds=30)
    await database.open()
    rows = []
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as bare:
        for question in questions(year):
            times: dict[str, list[float]] = {"http": [], "functions": [], "bare": []}
            source = ""
            for at in range(rounds + 5):
                began = time.perf_counter()
                http.request("GET", f"/api/v1{question.path}?{urlencode(question.parameters)}", headers=headers)
                answer = http.getresponse()
                body = answer.read()
                by_http = time.perf_counter()
                await question.ask(database)
                by_functions = time.perf_counter()
                await (await bare.execute(question.bare, prepare=False)).fetchall()
                end = time.perf_counter()
                assert answer.status == 200, body
                source = json.loads(body).get("source", "")
                if at >= 5:  # the first ones fill caches
                    times["http"].append(by_http - began)
                    times["functions"].append(by_functions - by_http)
                    times["bare"].append(end - by_functions)
            rows.append({"question": question.name, "source": source, **_summary(times)})
            print(json.dumps(rows[-1]), flush=True)
    await database.close()
    return rows


def _summary(times: dict[str, list[float]]) -> dict[str, float]:
    found = {}
    for name, seconds in times.items():
        ordered = sorted(seconds)
        found[f"{name}_p50_ms"] = round(statistics.median(ordered) * 1000, 2)
        found[f"{name}_p95_ms"] = round(ordered[int(len(ordered) * 0.95)] * 1000, 2)
    found["p95_to_bare"] = round(found["http_p95_ms"] / found["bare_p95_ms"], 2)
    shares = [http - functions for http, functions in zip(times["http"], times["functions"], strict=True)]
    found["own_share_p50_ms"] = round(statistics.median(shares) * 1000, 2)
    return found


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep is None:
        with new_data_folder() as folder:
            yield folder
        return
    path = Path(keep)
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    yield path


def main() -> None:
    """Store the readings unless they are there, measure the queries, and publish the report."""
    parser = argument_parser(__doc__)
    for name, default in (("--days", 365), ("--agents", 5), ("--series", 20), ("--rounds", 200)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--keep")
    options = parser.parse_args()
    with _folder(options.keep) as folder:
        server = Served(folder, IOTISTICA_USER_LIMIT="10000000").start().ready(seconds=120)
        try:
            owner = server.runtime().database_url
            began = time.monotonic()
            stored = stored_year(owner)
            year = stored or load(server, owner, options.days, options.agents, options.series)
            report: dict[str, Any] = {"load_seconds": round(time.monotonic() - began, 1)}
            report["roll_up_seconds"] = round(roll_up(owner, anew=stored is None), 1)
            print(json.dumps(report), flush=True)
            with psycopg.connect(owner) as connection:
                report["tables"] = [
                    {"table": name, "rows": rows, "bytes_a_row": round((heap + index) / max(rows, 1), 1)}
                    | {"heap": heap, "index": index}
                    for name, heap, index, rows in connection.execute(SIZES)
                ]
            report["questions"] = uvloop.run(measure(server, owner, year, options.rounds))
        finally:
            server.stop()
    publish("query", options.results, report)


if __name__ == "__main__":
    main()
