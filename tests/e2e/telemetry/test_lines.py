"""Lines of several series, and of fewer points: what restarts, gaps and silences do to them."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Served

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)


def iso(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def gaps(server: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An agent with two counters by the minute, one of which restarts and one of which misses a bucket."""
    tenant = server.add_tenant("lines")
    uuid = server.add_agent(tenant)["uuid"]
    path = tmp_path_factory.mktemp("gaps") / "gaps.csv"
    rows = ["time,device_name,metric,value"]
    for n in range(20):
        when = iso(DAY + timedelta(minutes=n))
        rows.append(f"{when},one,energy,{1000 + 5 * n if n < 10 else 5 * (n - 10)}")
        if n != 4:
            rows.append(f"{when},two,energy,{5000 + 5 * n}")
        rows.append(f"{iso(DAY + timedelta(minutes=n + (60 if n > 9 else 0)))},,silent,{n}")
    path.write_text("\n".join(rows))
    assert server.command("import", str(path), "--tenant", tenant, "--agent", uuid).returncode == 0
    return uuid


@pytest.fixture(scope="module")
def client(server: Served, gaps: str) -> httpx.Client:
    assert gaps
    return server.login("lines")


@pytest.mark.parametrize(
    ("aggregator", "options", "usual", "at_reset"),
    [
        ("sum", {"counter": True}, 10 / 60, 5 / 60),
        ("avg", {"counter": True}, 5 / 60, 2.5 / 60),
        ("max", {"counter": True}, 5 / 60, 5 / 60),
        ("min", {"counter": True}, 5 / 60, 0.0),
        ("count", {"counter": True}, 2, 2),
        ("sum", {"counter": True, "counter_max": 1050}, 10 / 60, 10 / 60),
        ("sum", {}, 10 / 60, (5 - 1045) / 60),
    ],
)
def test_counters_are_rated_before_they_are_joined(
    client: httpx.Client, gaps: str, aggregator: str, options: dict[str, Any], usual: float, at_reset: float
) -> None:
    """A counter that restarts is seen in its own series, and a missed bucket is filled in its own series."""
    grouped = [{"tagk": "metric", "filter": "energy", "group_by": True}]
    query: dict[str, Any] = {
        "metric": "energy",
        "agent_uuids": [gaps],
        "filters": grouped,
        "aggregator": aggregator,
    }
    query |= {"downsample": "1m-last", "rate": True, "rate_options": options, "fill": "linear"}
    answer = client.post(
        "/readings/query", json={"start": iso(DAY), "end": iso(DAY + timedelta(minutes=20)), "queries": [query]}
    )
    ((line,),) = answer.json()["results"]
    values = [dot["value"] for dot in line["dps"]]
    assert values[0] is None
    assert values[10] == pytest.approx(at_reset)
    assert values[1:10] + values[11:] == pytest.approx([usual] * 18)


@pytest.mark.parametrize(("fill", "at_gap"), [("none", 1020), ("null", 1020), ("previous", 6035), ("linear", 6040)])
def test_series_are_filled_before_they_are_joined(
    client: httpx.Client, gaps: str, fill: str, at_gap: float
) -> None:
    """A sum of two series does not drop where one of them is filled."""
    grouped = [{"tagk": "metric", "filter": "energy", "group_by": True}]
    query = {"metric": "energy", "agent_uuids": [gaps], "filters": grouped, "aggregator": "sum", "fill": fill}
    body = {"start": DAY.timestamp(), "end": (DAY + timedelta(minutes=8)).timestamp() * 1000}
    answer = client.post("/readings/query", json=body | {"queries": [query | {"downsample": "1m-last"}]})
    ((line,),) = answer.json()["results"]
    assert [dot["value"] for dot in line["dps"]][3:6] == [6030, at_gap, 6050]


def test_a_chart_shows_a_silence(client: httpx.Client, gaps: str) -> None:
    """Where the series is silent for more than five steps, a null keeps the line from being drawn across."""
    asked: dict[str, Any] = {
        "metric": "silent",
        "start": iso(DAY),
        "end": iso(DAY + timedelta(hours=2)),
        "max_points": 9,
    }
    for more in ({}, {"interval": "1m"}, {"interval": "1m", "fill": "null"}):
        for method in ("lttb", "minmax"):
            answer = client.get(f"/readings/{gaps}/timeseries", params={**asked, "downsample": method, **more})
            drawn = answer.json()["readings"]
            assert len(drawn) <= 9
            nulls = [at for at, row in enumerate(drawn) if row["value"] is None]
            assert drawn[nulls[0]]["time"] == iso(DAY + timedelta(minutes=10))
            assert (drawn[nulls[0] - 1]["value"], drawn[nulls[0] + 1]["value"]) == (9, 10)


def test_a_spreadsheet_runs_no_text_of_an_export(server: Served, client: httpx.Client, tmp_path: Path) -> None:
    """`safe=spreadsheet` quotes texts that begin like a formula, and leaves numbers and all other texts alone."""
    uuid = server.add_agent("lines")["uuid"]
    texts = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\ttab", " =2", "\uff1d3", "plain", "a=b"]
    path = tmp_path / "texts.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "metric", "value", "unit"])
        for n, text in enumerate(texts):
            rows.writerow([iso(DAY + timedelta(seconds=n)), text.strip(), -1.5, text.strip()])
    assert server.command("import", str(path), "--tenant", "lines", "--agent", uuid).returncode == 0
    asked = {"start": iso(DAY), "end": iso(DAY + timedelta(hours=1))}
    plain = list(csv.DictReader(io.StringIO(client.get(f"/readings/{uuid}/export", params=asked).text)))
    safe = client.get(f"/readings/{uuid}/export", params=asked | {"safe": "spreadsheet"})
    harmless = list(csv.DictReader(io.StringIO(safe.text)))
    assert [row["value"] for row in harmless] == ["-1.5"] * len(texts)
    for before, after in zip(plain, harmless, strict=True):
        for column in ("metric_name", "unit", "metric"):
            begins = before[column][:1] in ("=", "+", "-", "@", "\uff1d")
            assert after[column] == ("'" if begins else "") + before[column]
    refused = client.get(f"/readings/{uuid}/export", params=asked | {"safe": "spreadsheet", "format": "arrow"})
    assert refused.status_code == 400
