"""Series as a dashboard, an analyst and a script ask for them."""

import csv
import io
import json
import math
import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.serving import Served, until

DAY = (datetime.now(UTC) - timedelta(days=3)).replace(hour=0, minute=0, second=0, microsecond=0)
MINUTES = 2 * 24 * 60
VALUES = [round(20 + 5 * math.sin(n / 97), 3) for n in range(MINUTES)]


def iso(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def agent(server: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two days of two devices by the minute, and odd values, brought in from a file."""
    tenant = server.add_tenant("series")
    uuid = server.add_agent(tenant)["uuid"]
    path = tmp_path_factory.mktemp("history") / "history.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "device_name", "metric", "value", "unit", "quality", "extra"])
        for n, value in enumerate(VALUES):
            when = iso(DAY + timedelta(minutes=n))
            rows.writerow([when, "boiler", "temperature", value, "C", "good", ""])
            rows.writerow([when, "chiller", "temperature", -value, "C", "bad" if n % 100 == 0 else "good", ""])
        rows.writerow([iso(DAY), "", "state", "", "", "good", json.dumps({"text": 'on "hold", ü%'})])
        rows.writerow([iso(DAY), "", 'odd "%s"; %', "true", "", "", ""])
        rows.writerow(["yesterday\x1b[2J", "", "state", 1, "", "", ""])
        rows.writerow([iso(datetime.now(UTC) + timedelta(days=9)), "", "state", 1, "", "", ""])
    done = server.command("import", str(path), "--tenant", tenant, "--agent", uuid)
    assert done.returncode == 1, done.stderr  # some were rejected
    assert "row 5,763: bad_time yesterday?[2J\n" in done.stdout
    assert f"{2 * MINUTES + 4:,} rows: {2 * MINUTES + 2:,} stored" in done.stdout
    assert "rejected, bad_time: 1" in done.stdout
    assert "rejected, future: 1" in done.stdout
    again = server.command("import", str(path), "--tenant", tenant, "--agent", uuid)
    assert f"0 stored, {2 * MINUTES + 2:,} were already stored (0 with another value), 2 rejected" in again.stdout
    client = server.login("series")
    ask = {"metric": "boiler.temperature", "start": iso(DAY), "end": iso(DAY + timedelta(days=2)), "interval": "1d"}
    until(lambda: client.get(f"/readings/{uuid}/timeseries", params=ask).json()["source"] == "daily", 60)
    return uuid


@pytest.fixture(scope="module")
def client(server: Served, agent: str) -> httpx.Client:
    assert agent
    return server.login("series")


def ask(client: httpx.Client, agent: str, **parameters: Any) -> dict[str, Any]:
    asked = {"metric": "boiler.temperature", "start": iso(DAY), "end": iso(DAY + timedelta(days=2))} | parameters
    answer = client.get(f"/readings/{agent}/timeseries", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("interval", "tz", "source"),
    [
        ("1d", None, "daily"),
        ("1d", "Europe/Zurich", "1h"),
        ("1d", "Asia/Kolkata", "1m"),
        ("6h", None, "1h"),
        ("1h", None, "1h"),
        ("15m", None, "1m"),
        ("90s", None, "raw"),
    ],
)
@pytest.mark.parametrize("agg", ["avg", "min", "max", "sum", "count", "first", "last", "stddev", "median", "p95"])
def test_every_source_gives_the_same_answer(
    client: httpx.Client, agent: str, interval: str, tz: str | None, source: str, agg: str
) -> None:
    """The cheapest that is exact is chosen and named; forced to single readings it says the same."""
    asked = {"interval": interval, "agg": agg, **({"tz": tz} if tz else {})}
    got = ask(client, agent, **asked)
    raw = ask(client, agent, **asked, source="raw")
    assert got["source"] == ("raw" if agg in ("median", "p95") else source)
    assert raw["source"] == "raw"
    assert [(r["time"], r["count"]) for r in got["readings"]] == [(r["time"], r["count"]) for r in raw["readings"]]
    # A deviation from sums of squares loses digits where it is small beside the mean.
    digits = 1e-7 if agg == "stddev" else 1e-9
    for a, b in zip(got["readings"], raw["readings"], strict=True):
        assert a["value"] == b["value"] or a["value"] == pytest.approx(b["value"], rel=digits)
    if interval == "1d" and tz is None:
        day = VALUES[:1440]
        wanted = {"avg": statistics.fmean(day), "median": statistics.median(day), "stddev": statistics.stdev(day)}
        wanted |= {"count": 1440, "first": day[0], "last": day[-1], "sum": math.fsum(day)}
        if agg in wanted:
            assert got["readings"][0]["value"] == pytest.approx(wanted[agg], rel=1e-9)


def test_parts_of_an_answer_name_their_sources(client: httpx.Client, agent: str) -> None:
    """An end that cuts an hour falls to minutes, and one that cuts a minute to single readings."""
    start = DAY + timedelta(hours=1, minutes=30, seconds=30)
    answer = ask(client, agent, start=iso(start), end=iso(DAY + timedelta(hours=5)), interval="1h", agg="count")
    assert [part["source"] for part in answer["sources"]] == ["raw", "1m", "1h"]
    assert [row["value"] for row in answer["readings"]] == [29, 60, 60, 60]
    assert answer["sources"][0]["start"] == iso(start)


def test_gaps_are_filled_when_asked(client: httpx.Client, agent: str) -> None:
    """Otherwise a bucket without readings is left out."""
    asked = {"metric": "state", "interval": "1h", "end": iso(DAY + timedelta(hours=3)), "agg": "count"}
    assert len(ask(client, agent, **asked)["readings"]) == 1
    filled = ask(client, agent, **asked, fill="previous")["readings"]
    assert [(row["value"], row["count"]) for row in filled] == [(1, 1), (1, 0), (1, 0)]
    assert [row["value"] for row in ask(client, agent, **asked, fill="null")["readings"]] == [1, None, None]


def test_a_chart_gets_the_points_it_can_draw(client: httpx.Client, agent: str) -> None:
    """Of single readings and of buckets, by either method."""
    for more in ({}, {"interval": "5m"}):
        for method in ("lttb", "minmax"):
            answer = ask(client, agent, max_points=100, downsample=method, **more)
            assert 50 < len(answer["readings"]) <= 100
            assert answer["readings"][0]["time"] == iso(DAY)


def test_values_come_back_as_they_were_sent(client: httpx.Client, agent: str) -> None:
    """Text, booleans, names with quotes and percent signs, null units."""
    text = ask(client, agent, metric="state")["readings"]
    assert [row["extra"]["text"] for row in text] == ['on "hold", ü%']
    assert text[0]["value"] is None
    odd = ask(client, agent, metric='odd "%s"; %')["readings"]
    assert [(row["value"], row["unit"], row["quality"]) for row in odd] == [(1.0, None, "good")]


def test_aggregates_come_all_at_once(client: httpx.Client, agent: str) -> None:
    """By the older names too."""
    asked = {"metric": "chiller.temperature", "start": iso(DAY), "end": iso(DAY + timedelta(days=1))}
    daily = client.get(f"/readings/{agent}/aggregate", params=asked | {"granularity": "daily"}).json()
    (row,) = daily["aggregates"]
    good = [-value for n, value in enumerate(VALUES[:1440]) if n % 100]
    assert row["sample_count"] == 1440
    assert row["avg_value"] == pytest.approx(statistics.fmean(good))
    assert row["stddev_value"] == pytest.approx(statistics.stdev(good))
    assert (row["min_value"], row["first_value"], row["last_value"]) == (min(good), good[0], good[-1])
    assert daily["source"] == "daily"


def test_silent_series_are_among_the_latest(client: httpx.Client, agent: str) -> None:
    """And the catalog and the summary know when each was heard of."""
    latest = client.get(f"/readings/{agent}/latest").json()["readings"]
    assert {row["metric_name"] for row in latest} == {
        *("boiler.temperature", "chiller.temperature", "state", 'odd "%s"; %')
    }
    boiler = next(row for row in latest if row["metric_name"] == "boiler.temperature")
    assert (boiler["value"], boiler["time"]) == (VALUES[-1], iso(DAY + timedelta(minutes=MINUTES - 1)))
    some = client.get(f"/readings/{agent}/latest", params={"metrics": "state,none"}).json()["readings"]
    assert [row["extra"]["text"] for row in some] == ['on "hold", ü%']
    catalog = client.get("/metrics/catalog", params={"agentUuid": agent}).json()["metrics"]
    entry = next(one for one in catalog if one["metric_name"] == "boiler.temperature")
    assert (entry["metric"], entry["device_name"], entry["unit"]) == ("temperature", "boiler", "C")
    assert (entry["first_time"], entry["last_time"]) == (iso(DAY), boiler["time"])
    page = client.get("/metrics/catalog", params={"limit": 3}).json()
    rest = client.get("/metrics/catalog", params={"limit": 3, "cursor": page["next"]}).json()
    names = [one["metric_name"] for one in page["metrics"] + rest["metrics"]]
    assert names == sorted(names)
    assert (len(names), rest["next"]) == (4, None)
    found = client.get("/metrics/catalog", params={"metricName": "temperature"}).json()["metrics"]
    assert len(found) == 2
    summary = client.get(f"/readings/{agent}/summary", params={"start": iso(DAY)}).json()["metrics"]
    totals = {row["metric_name"]: row["total_readings"] for row in summary}
    assert totals["chiller.temperature"] == MINUTES


def post(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/readings/query", json={"start": iso(DAY), "end": iso(DAY + timedelta(days=1))} | body)


def test_several_series_are_asked_for_at_once(client: httpx.Client, agent: str) -> None:
    """Chosen by tags, each on its own, joined where a filter groups them, and as rates."""
    every = {"tagk": "device_name", "type": "wildcard", "filter": "*ler"}
    one = {"metric": "temperature", "agent_uuids": [agent], "downsample": "1h-avg"}
    answer = post(
        client,
        queries=[
            {"metric": "temperature", "filters": [every], "downsample": "1h-avg"},
            {"metric": "temperature", "filters": [every, {"tagk": "unit", "filter": "C", "group_by": True}]}
            | {"aggregator": "count", "downsample": "1h-avg"},
            {"metric": "temperature", "filters": [{"tagk": "device_name", "type": "regexp", "filter": "^c.+r$"}]},
            one
            | {"rate": True, "downsample": "1h-first", "filters": [{"tagk": "device_name", "filter": "boiler"}]},
            one | {"percentiles": [50, 95], "filters": [{"tagk": "device_name", "filter": "boiler"}]},
            {"metric": "nothing", "agent_uuids": [agent]},
        ],
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [len(lines) for lines in results] == [2, 1, 1, 1, 2, 0]
    assert [line["tags"]["device_name"] for line in results[0]] == ["boiler", "chiller"]
    assert results[0][0]["dps"][0]["value"] == pytest.approx(statistics.fmean(VALUES[:60]))
    assert results[0][0]["source"] == "1h"
    assert {dot["value"] for dot in results[1][0]["dps"]} == {2.0}
    assert results[3][0]["dps"][0]["value"] == pytest.approx((VALUES[60] - VALUES[0]) / 3600)
    assert [line["tags"]["percentile"] for line in results[4]] == ["50", "95"]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"metric": "m", "filters": [{"tagk": "unit", "type": "regexp", "filter": "(.{1,100}){9}"}]}, "filters"),
        ({"metric": "m", "filters": [{"tagk": "unit", "type": "regexp", "filter": r"(.*)\\1"}]}, "filters"),
        (
            {"metric": "m", "agent_uuids": [str(uuid4())], "rate": True, "downsample": "1h-avg"}
            | {"rate_options": {"counter": True}},
            "downsample",
        ),
        ({"metric": "m"}, "agent_uuids"),
        ({"metric": "m", "filters": [{"tagk": "password", "filter": "x"}]}, ""),
        ({"metric": "m", "filters": [{"tagk": "unit", "type": "regexp", "filter": "("}]}, ""),
        ({"metric": "m", "agent_uuids": [str(uuid4())], "downsample": "1h-mean"}, "downsample"),
        ({"metric": "m", "agent_uuids": [str(uuid4())], "downsample": "1y-avg"}, "downsample"),
        ({"metric": "m", "agent_uuids": [str(uuid4())], "rate": True, "percentiles": [5]}, "percentiles"),
        ({"metric": "m", "agent_uuids": [str(uuid4())], "percentiles": [100]}, ""),
        ({"metric": "m", "agent_uuids": [str(uuid4())], "surprise": 1}, ""),
    ],
)
def test_a_bad_question_says_what_is_wrong(client: httpx.Client, query: dict[str, Any], path: str) -> None:
    """With the place of the fault, and nothing else harmed."""
    answer = post(client, queries=[query])
    assert answer.status_code == 400, answer.text
    assert path in json.dumps(answer.json())


def export(client: httpx.Client, agent: str, **parameters: Any) -> httpx.Response:
    asked = {"start": iso(DAY), "end": iso(DAY + timedelta(days=3))} | parameters
    return client.get(f"/readings/{agent}/export", params=asked)


def test_an_export_is_everything_in_order_and_goes_on_where_it_broke(client: httpx.Client, agent: str) -> None:
    """By time and name; `after` the last whole row nothing is missing and nothing comes twice."""
    rows = list(csv.DictReader(io.StringIO(export(client, agent).text)))
    keys = [(row["time"], row["metric_name"]) for row in rows]
    assert len(keys) == 2 * MINUTES + 2
    assert keys == sorted(keys)
    last = rows[1233]
    rest = export(client, agent, after=f"{last['time']},{last['metric_name']}").text
    assert list(csv.DictReader(io.StringIO(rest))) == rows[1234:]
    whole = client.get(f"/readings/{agent}/export", params={"after": f"{last['time']},{last['metric_name']}"})
    assert whole.text == rest  # it needs no start
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert export(client, agent, format="parquet").headers["content-type"] == "application/vnd.apache.parquet"
    assert export(client, agent, metrics="state, none").text.count("\n") == 2
    assert export(client, agent, metric=["state", 'odd "%s"; %']).text.count("\n") == 3
    assert export(client, agent, metrics="a\0").status_code == 400
    assert export(client, agent, after="yesterday").status_code == 400


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_what_is_exported_can_be_brought_in_elsewhere(
    server: Served, client: httpx.Client, agent: str, tmp_path: Path, kind: str
) -> None:
    """Every column survives the way out and in, whatever the format."""
    path = tmp_path / f"history.{kind}"
    path.write_bytes(export(client, agent, format=kind).content)
    twin = server.add_agent("series")["uuid"]
    done = server.command("import", str(path), "--tenant", "series", "--agent", twin)
    assert f"{2 * MINUTES + 2:,} stored" in done.stdout, done.stderr + done.stdout
    copy = export(client, twin).text.replace(twin, agent)
    assert copy == export(client, agent).text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "no column 'time'; its columns are x"),
        ("a.csv", b"when,value\n1,2\n", "no column 'time'"),
        ("a.csv", b"time,value\n1,2\n", "no column 'metric'"),
        ("a.csv", b"", "it looks like an empty file"),
        ("a.parquet", b"PAR1", "Cannot read"),
    ],
)
def test_a_file_that_is_no_history_is_refused(
    server: Served, agent: str, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """In a line, with what is wrong with it."""
    (tmp_path / name).write_bytes(content)
    done = server.command("import", str(tmp_path / name), "--tenant", "series", "--agent", agent)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_foreign_agent_is_unknown_everywhere(server: Served, agent: str) -> None:
    """Its series are neither found nor exported, by any route."""
    server.add_tenant("curious")
    stranger = server.login("curious")
    for path in ("timeseries?metric=state", "aggregate?metric=state", "latest", "summary", "export"):
        assert stranger.get(f"/readings/{agent}/{path}").status_code == 404
    answer = post(stranger, queries=[{"metric": "temperature", "agent_uuids": [agent]}])
    assert answer.json()["results"] == [[]]
    assert stranger.get("/metrics/catalog").json()["metrics"] == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("timeseries?metric=state&from=4d", "from: is not a parameter of this route"),
        ("timeseries?metric=state&maxpoints=9", "did you mean max_points?"),
        ("timeseries?metric=state&start=4d&start=5d", "start: must be given only once"),
        ("timeseries?metric=state&fill=zero&interval=1h", "must be one of none, null, previous, linear"),
        ("timeseries?metric=state&start=739942d", "out of range"),
        ("summary?end=739000d", "out of range"),
        ("export?format=xlsx", "format: Invalid enum value 'xlsx'; must be one of csv, arrow, parquet"),
        ("timeseries?metric=state&start=4d&interval=0h", "whole number above 0"),
        ("timeseries?metric=state&start=400d&interval=1s", "3456s or longer"),
    ],
)
def test_a_mistake_is_never_ignored(client: httpx.Client, agent: str, path: str, said: str) -> None:
    """What a route does not know could mean something else to who wrote it: of a deletion, everything."""
    answer = client.get(f"/readings/{agent}/{path}")
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["detail"]


def test_a_misspelt_deletion_deletes_nothing(server: Served, agent: str) -> None:
    """Nor does one of a series that there is not."""
    admin = server.login("series", "admin")
    for asked in ({"metrics": "state"}, {"metric": "stat"}, {"device": "boilr"}, {"metric": ["a", "b"]}):
        assert admin.delete(f"/readings/{agent}", params=asked).status_code == 400
    assert admin.get("/erasures").json()["erasures"] == []


def test_dates_are_of_the_zone_that_is_asked_for(client: httpx.Client, agent: str) -> None:
    """Unless they name one."""
    day = (DAY + timedelta(days=1)).date().isoformat()
    until_ = (DAY + timedelta(days=2)).date().isoformat()
    answer = ask(client, agent, start=day, end=until_, interval="1d", tz="Asia/Kolkata", agg="count")
    assert [row["value"] for row in answer["readings"]] == [1440]
    assert answer["start"] == iso(DAY + timedelta(hours=18, minutes=30))
    single = ask(client, agent, start=day, end=until_, tz="Asia/Kolkata")
    assert (single["start"], single["count"]) == (answer["start"], 1440)


def test_lists_of_series_have_pages(client: httpx.Client, agent: str) -> None:
    """Each says how the next is asked for."""
    for path, key in (("latest", "readings"), ("summary", "metrics")):
        names: list[str] = []
        after: str | None = ""
        while after is not None:
            asked = {"limit": "3", "after": after} | ({"start": iso(DAY)} if path == "summary" else {})
            page = client.get(f"/readings/{agent}/{path}", params=asked).json()
            names += [row["metric_name"] for row in page[key]]
            after = page["next"]
        assert names == sorted(names)
        assert len(names) == 4


def test_an_answer_ends_early_where_readings_are_large(server: Served, agent: str) -> None:
    """Nothing is left out: `next` goes on; an export of one moment of many series holds them all."""
    uuid, client = server.add_agent("series")["uuid"], server.login("series", "operator")
    assert uuid != agent
    when = DAY + timedelta(hours=3)
    large = "ü" * 3900  # of two bytes each
    for first in range(0, 1300, 50):
        points = [
            {"metric": "large", "value": f"{n} {large}", "timestamp": iso(when + timedelta(seconds=n))}
            for n in range(first, first + 50)
        ]
        points += [{"metric": f"m{n:04}", "value": large, "timestamp": iso(when)} for n in range(first, first + 50)]
        answer = client.post(
            f"/readings?agent={uuid}", content=json.dumps({"readings": points}, ensure_ascii=False)
        )
        assert answer.status_code == 202, answer.text
    asked: dict[str, Any] = {"metric": "large", "end": iso(DAY + timedelta(days=1)), "start": iso(DAY)}
    until(lambda: client.get(f"/readings/{uuid}/summary", params={"start": iso(DAY)}).json()["total_metrics"], 60)
    until(lambda: export(client, uuid).text.count("\n") == 2601, 60)
    rows = list(csv.DictReader(io.StringIO(export(client, uuid).text)))
    assert len({row["metric_name"] for row in rows}) == 1301
    assert [row["metric_name"] for row in rows[:1301]] == sorted(row["metric_name"] for row in rows[:1301])
    values: list[int] = []
    pages = 0
    while asked["start"]:
        page = client.get(f"/readings/{uuid}/timeseries", params=asked).json()
        values += [int(row["extra"]["text"].split()[0]) for row in page["readings"]]
        asked["start"], pages = page["next"], pages + 1
    assert values == list(range(1300))
    assert pages == 2


def test_an_import_leaves_what_a_series_says_of_itself(server: Served, agent: str, tmp_path: Path) -> None:
    """History without a unit or a protocol takes none from the live readings of today."""
    uuid, client = server.add_agent("series")["uuid"], server.login("series", "operator")
    assert uuid != agent
    live = {"metric": "temp", "value": 1, "unit": "degC", "protocol": "modbus"}
    assert client.post(f"/readings?agent={uuid}", content=json.dumps({"readings": [live]})).status_code == 202
    catalog: dict[str, Any] = {"agentUuid": uuid}
    until(lambda: client.get("/metrics/catalog", params=catalog).json()["metrics"])
    path = tmp_path / "old.csv"
    path.write_text(f"time,metric,value\n{iso(DAY)},temp,2\n{iso(DAY + timedelta(hours=1))},temp,TRUE\n")
    path.write_text(path.read_text() + f'{iso(DAY + timedelta(hours=2))},temp,"high"\n')
    done = server.command("import", str(path), "--tenant", "series", "--agent", uuid)
    assert (done.returncode, "3 stored" in done.stdout) == (0, True), done.stdout
    assert "1 of the values are not numbers" in done.stdout
    (entry,) = client.get("/metrics/catalog", params=catalog).json()["metrics"]
    assert (entry["unit"], entry["protocol"]) == ("degC", "modbus")


def test_a_file_of_arrow_is_read_like_a_stream(server: Served, client: httpx.Client, tmp_path: Path) -> None:
    """As data frames write them, whole or in pieces."""
    pa = pytest.importorskip("pyarrow")
    uuid = server.add_agent("series")["uuid"]
    table = pa.table({"time": [DAY, DAY + timedelta(hours=1)], "metric": ["x", "x"], "value": [1.5, None]})
    path = tmp_path / "frame.feather"
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    done = server.command("import", str(path), "--tenant", "series", "--agent", uuid)
    assert "2 rows: 2 stored" in done.stdout, done.stderr + done.stdout
    assert [row["value"] for row in ask(client, uuid, metric="x")["readings"]] == [1.5, None]
