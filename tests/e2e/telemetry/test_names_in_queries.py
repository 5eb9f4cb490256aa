"""Names of series as people write them in questions: whole, short, decomposed, or wrong."""

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.serving import Served, until

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
READINGS: list[dict[str, Any]] = [
    {"deviceName": "boiler-1", "metric": "temperature", "value": 20.0},
    {"deviceName": "boiler-1", "metric": "pressure", "value": 1.5},
    {"deviceName": "boiler-2", "metric": "temperature", "value": 30.0},
    {"metric": "flow", "value": 3.0},
    {"deviceName": "pump", "metric": "flow", "value": 4.0},
    {"metric": "Au\u00dfenw\u00e4rme", "value": 7.0},
]


@pytest.fixture(scope="module")
def agent(server: Served) -> str:
    server.add_tenant("names")
    return server.add_agent("names")["uuid"]


@pytest.fixture(scope="module")
def viewer(server: Served, agent: str) -> httpx.Client:
    owner = server.login("names", "owner")
    points = [{**reading, "timestamp": NOW.isoformat()} for reading in READINGS]
    assert owner.post(f"/readings?agent={agent}", json={"readings": points}).status_code == 202
    viewer = server.login("names")
    until(lambda: viewer.get(f"/readings/{agent}/latest").json()["count"] == len(READINGS), 20, "all are stored")
    return viewer


ROUTES: dict[str, dict[str, Any]] = {
    "timeseries": {},
    "timeseries in buckets": {"interval": "1h"},
    "timeseries of points": {"max_points": 10},
    "aggregate": {},
}


def ask(viewer: httpx.Client, agent: str, route: str, metric: str) -> httpx.Response:
    parameters = {"metric": metric, **ROUTES[route]}
    return viewer.get(f"/readings/{agent}/{route.split(maxsplit=1)[0]}", params=parameters)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("boiler-1.pressure", "boiler-1.pressure"),
        ("pressure", "boiler-1.pressure"),
        ("flow", "flow"),
        ("pump.flow", "pump.flow"),
        (unicodedata.normalize("NFD", "Au\u00dfenw\u00e4rme"), "Au\u00dfenw\u00e4rme"),
    ],
)
def test_a_whole_name_and_a_metric_are_both_understood(
    viewer: httpx.Client, agent: str, route: str, written: str, whole: str
) -> None:
    """A metric means the only series that has it; a name that is whole means that series alone."""
    answer = ask(viewer, agent, route, written)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["metric"], answer.json()["count"]) == (whole, 1)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("written", "status", "said"),
    [
        ("tempratur", 400, "boiler-1.temperature, boiler-2.temperature"),
        ("boiler-1.presure", 400, "boiler-1.pressure"),
        ("xyzzy", 400, "GET /metrics/catalog"),
        ("temperature", 400, "boiler-1.temperature, boiler-2.temperature"),
    ],
)
def test_a_name_that_no_series_has_is_told_with_the_nearest(
    viewer: httpx.Client, agent: str, route: str, written: str, status: int, said: str
) -> None:
    """A metric of several devices names them; nothing is an empty answer for a spelling mistake."""
    answer = ask(viewer, agent, route, written)
    assert answer.status_code == status, answer.text
    assert said in json.dumps(answer.json())
    assert answer.json()["errors"][0]["path"] == "metric"


def test_a_known_name_without_readings_in_the_range_is_an_empty_answer(viewer: httpx.Client, agent: str) -> None:
    """That is no mistake, whether the name is whole or short."""
    for metric in ("boiler-1.pressure", "pressure"):
        parameters = {"metric": metric, "start": "10d", "end": "9d"}
        answer = viewer.get(f"/readings/{agent}/timeseries", params=parameters)
        assert (answer.status_code, answer.json()["count"]) == (200, 0)


def test_lists_of_names_tell_those_that_are_unknown(viewer: httpx.Client, agent: str) -> None:
    """The others are answered; a metric means all series that have it."""
    answer = viewer.get(f"/readings/{agent}/latest", params={"metrics": "temperature,tempratur,flow"}).json()
    assert [reading["metric_name"] for reading in answer["readings"]] == [
        "boiler-1.temperature",
        "boiler-2.temperature",
        "flow",
    ]
    (unknown,) = answer["unknown"]
    assert unknown == {"metric": "tempratur", "nearest": ["boiler-1.temperature", "boiler-2.temperature"]}
    assert "unknown" not in viewer.get(f"/readings/{agent}/latest").json()
    exported = viewer.get(f"/readings/{agent}/export", params={"metrics": "pressure", "start": "1h"})
    assert "boiler-1.pressure" in exported.text
    partly = viewer.get(f"/readings/{agent}/export", params={"metrics": "pressure,\u00e4, b", "start": "1h"})
    assert (partly.text, partly.headers["Iotistica-Unknown"]) == (exported.text, "%C3%A4,b")
    assert viewer.get(f"/readings/{agent}/export", params={"metrics": "presure"}).status_code == 400


def test_queries_of_many_series_tell_unknown_metrics(viewer: httpx.Client, agent: str) -> None:
    """The others are answered: one panel of a dashboard must not cost the rest."""
    queries = [{"metric": name, "agent_uuids": [agent]} for name in ("temperature", "presure", "boiler-1.pressure")]
    answer = viewer.post("/readings/query", json={"start": "1h", "queries": queries}).json()
    assert [len(lines) for lines in answer["results"]] == [2, 0, 1]
    (unknown,) = answer["unknown"]
    assert (unknown["query"], unknown["metric"], unknown["nearest"][0]) == (1, "presure", "boiler-1.pressure")
    composed = unicodedata.normalize("NFD", "Au\u00dfenw\u00e4rme")
    filters = [{"tagk": "unit", "filter": "never"}]
    query = [{"metric": composed, "agent_uuids": [agent]}, {"metric": "flow", "filters": filters}]
    answer = viewer.post("/readings/query", json={"start": "1h", "queries": query}).json()
    assert [len(lines) for lines in answer["results"]] == [1, 0]
    assert "unknown" not in answer  # a filter that matches nothing is no spelling mistake


def test_the_catalog_is_searched_by_a_part_of_a_name(viewer: httpx.Client, agent: str) -> None:
    """In any case, in the device or the metric; of several words, all."""

    def found(text: str) -> list[str]:
        return [
            entry["metric_name"]
            for entry in viewer.get("/metrics/catalog", params={"search": text}).json()["metrics"]
        ]

    assert found("TEMP") == ["boiler-1.temperature", "boiler-2.temperature"]
    assert found("boiler-1") == ["boiler-1.pressure", "boiler-1.temperature"]
    assert found(unicodedata.normalize("NFD", "w\u00e4rme")) == ["Au\u00dfenw\u00e4rme"]
    assert found("temp boiler-2") == ["boiler-2.temperature"]
    assert found("temp nothing") == []
    assert found("%") == found("_emp") == found("\\") == []
    assert len(found("")) == len(READINGS)
