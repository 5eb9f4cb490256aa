"""The REST API as a dashboard uses it."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from litestar import Litestar

from iotistica import listening_socket
from iotistica.api.http import server as http
from tests.mqtt311 import Client311
from tests.serving import ADMIN, Served, free_port, until

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


@pytest.fixture(scope="module")
def agent(server: Served) -> dict[str, str]:
    """An agent with an hour of a value a minute: 0, 1, … 59, the last of them bad."""
    server.add_tenant("rest")
    made = server.add_agent("rest")
    readings = [
        {
            "metric": "m",
            "value": n,
            "timestamp": (START + timedelta(minutes=n)).isoformat(),
            "quality": "BAD" if n == 59 else "GOOD",
        }
        for n in range(60)
    ]
    with Client311(server.mqtt_port, made["username"], made["password"]) as device:
        device.publish(f"{made['topic']}/endpoints/modbus", json.dumps({"readings": readings}).encode())
    client = server.login("rest")
    until(lambda: client.get("/ingestion/ledger").json()["readings"]["stored"] == 60)
    return made


@pytest.fixture(scope="module")
def client(server: Served, agent: dict[str, str]) -> httpx.Client:
    return server.login("rest")


def query(client: httpx.Client, agent: dict[str, str], **parameters: object) -> httpx.Response:
    defaults = {"metric": "m", "start": START.isoformat(), "end": (START + timedelta(hours=1)).isoformat()}
    return client.get(f"/readings/{agent['uuid']}/timeseries", params=defaults | parameters)  # type: ignore[arg-type]


def test_raw_readings_page_by_time(client: httpx.Client, agent: dict[str, str]) -> None:
    """A cut answer names the start of the next."""
    values, start = [], START.isoformat()
    while start:
        answer = query(client, agent, start=start, limit=25).json()
        values += [row["value"] for row in answer["readings"]]
        start = answer.get("next")
    assert values == list(range(60))


@pytest.mark.parametrize(
    ("agg", "values"),
    [
        ("avg", [14.5, 44.0]),
        ("min", [0, 30]),
        ("max", [29, 58]),
        ("sum", [435, 1276]),
        ("count", [30, 30]),
        ("first", [0, 30]),
        ("last", [29, 58]),
    ],
)
def test_buckets_leave_bad_values_out_and_count_them(
    client: httpx.Client, agent: dict[str, str], agg: str, values: list[float]
) -> None:
    """Only good and uncertain values enter an aggregate, whether minutes have been rolled up by now or not."""
    for asked in ({}, {"source": "raw"}):
        answer = query(client, agent, interval="30m", agg=agg, **asked).json()
        assert [row["value"] for row in answer["readings"]] == values
        assert [row["count"] for row in answer["readings"]] == [30, 30]
        assert (answer["interval"], answer["agg"]) == ("30m", agg)
        assert answer["source"] in {"raw", asked.get("source", "1m")}


def test_summary_and_agents(client: httpx.Client, agent: dict[str, str]) -> None:
    """What an operator sees first."""
    (metric,) = client.get(f"/readings/{agent['uuid']}/summary").json()["metrics"]
    assert (metric["total_readings"], metric["min"], metric["max"]) == (60, 0, 58)
    listed = until(lambda: (a := client.get("/agents").json()["agents"])[0]["online"] and a[0], what="it is online")
    assert listed["uuid"] == agent["uuid"]
    assert client.get(f"/agents/{agent['uuid']}").json()["topic"] == listed["topic"]
    assert client.get("/auth/me").json()["role"] == "viewer"


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"start": "yesterday"}, "start"),
        ({"end": "2020-01-01"}, "start"),
        ({"start": "999999w"}, "start"),
        ({"end": "0001-01-01T00:30"}, "end"),
        ({"end": "9999-12-31T23:59:59-12:00"}, "end"),
        ({"interval": "5 minutes"}, "interval"),
        ({"interval": "1s", "start": "30d"}, "interval"),
        ({"agg": "mean"}, "agg"),
        ({"agg": "p100"}, "agg"),
        ({"interval": "1m", "agg": "p95", "source": "1m"}, "agg"),
        ({"interval": "90s", "source": "1m"}, "source"),
        ({"interval": "1s", "start": "1900-01-01", "end": "2031-01-01"}, "interval"),
        ({"interval": "1d", "tz": "Europe/Atlantis"}, "tz"),
        ({"interval": "1d", "tz": "../../etc/passwd"}, "tz"),
        ({"interval": "7h", "tz": "Europe/Zurich"}, "interval"),
        ({"interval": "1h", "fill": "zero"}, "fill"),
        ({"fill": "linear"}, "fill"),
        ({"source": "1h"}, "source"),
        ({"max_points": 2}, "max_points"),
        ({"limit": 0}, "limit"),
        ({"metric": ""}, "metric"),
        ({"metric": "m" * 600}, "metric"),
    ],
)
def test_a_bad_query_is_answered_with_its_path(
    client: httpx.Client, agent: dict[str, str], parameters: dict[str, object], path: str
) -> None:
    """A problem document that names the field, for people and for older clients."""
    answer = query(client, agent, **parameters)
    problem = answer.json()
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["path"] == path
    assert problem["error"] == problem["detail"] == f"{path}: {problem['errors'][0]['message']}"


@pytest.mark.parametrize("metric", ["' OR 1=1 --", "100%", "%(tenant)s", "a\0b", "ü"])
def test_odd_metric_names_are_only_names(client: httpx.Client, agent: dict[str, str], metric: str) -> None:
    """Quotes and percent signs reach no statement as such."""
    answer = query(client, agent, metric=metric)
    assert (answer.status_code, answer.json().get("count", 0)) in ((200, 0), (400, 0))


def test_the_door_is_closed(server: Served) -> None:
    """No token, a wrong one or a wrong password: 401, alike for a user that exists and one that does not."""
    base = f"http://127.0.0.1:{server.http_port}/api/v1"
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic eDp5"}):
        answer = httpx.get(f"{base}/agents", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    answers = [
        httpx.post(f"{base}/auth/login", json={"email": email, "password": "wrong"})
        for email in (ADMIN[0], "nobody@example.com")
    ]
    assert [a.status_code for a in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert httpx.post(f"{base}/auth/login", json={"email": 1}).status_code == 400
    assert httpx.post(f"{base}/auth/login", content=b"{").status_code == 400
    assert httpx.get(f"{base}/nothing").status_code == 404


def test_health_metrics_and_the_pages_of_the_api_work_offline(server: Served) -> None:
    """Everything the documentation's page loads comes from here."""
    base = f"http://127.0.0.1:{server.http_port}"
    health = httpx.get(f"{base}/health").json()
    assert (health["status"], health["database"]["ok"], health["redis"]["ok"]) == ("healthy", True, True)
    assert httpx.get(f"{base}/").json()["documentation"] == "/schema"
    assert "iotistica_readings_total" in httpx.get(f"{base}/metrics").text
    page = httpx.get(f"{base}/schema/", follow_redirects=True).text
    assert "http://" not in page.replace(base, "")
    assert "https://" not in page
    for asset, size in (("swagger-ui-bundle.js", 10_000), ("swagger-ui.css", 10_000), ("start.js", 100)):
        assert f"/schema/assets/{asset}" in page
        assert len(httpx.get(f"{base}/schema/assets/{asset}").content) > size
    paths = httpx.get(f"{base}/schema/openapi.json").json()["paths"]
    assert "/api/v1/readings/{agent}/timeseries" in paths


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"email":' + b"[" * 100_000, b'{"email":"a","password":"\xff"}', b"\xff\xfe", b"", b"null"],
)
def test_a_broken_body_is_the_callers_fault(server: Served, body: bytes) -> None:
    """However it is broken, the answer is a problem and no 500."""
    url = f"http://127.0.0.1:{server.http_port}/api/v1/auth/login"
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["status"] == 400


@pytest.mark.parametrize("name", ["%00", "a" * 300, "..%2f..%2f__init__.py", "index.html"])
def test_only_the_pages_own_files_are_served(server: Served, name: str) -> None:
    """No other name reaches the disk."""
    assert httpx.get(f"http://127.0.0.1:{server.http_port}/schema/assets/{name}").status_code == 404


@pytest.mark.parametrize("head", ["[" * 20_000, '{"alg":"HS256"}', "{}", "null"])
def test_a_broken_token_is_refused(server: Served, head: str) -> None:
    """Whatever stands in it."""
    token = base64.urlsafe_b64encode(head.encode()).rstrip(b"=").decode() + ".e30.AA"
    url = f"http://127.0.0.1:{server.http_port}/api/v1/agents"
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_values_too_large_to_sum_cost_no_answer(server: Served) -> None:
    """They are shown; a sum that no number can hold is none, and everything else is as ever."""
    tenant = server.add_tenant("overflow")
    made, client = server.add_agent(tenant), server.login(tenant)
    points = [
        {"metric": "m", "value": 1.7e308, "timestamp": (START + timedelta(seconds=n)).isoformat()} for n in (0, 1)
    ]
    points.append({"metric": "m", "value": 3, "timestamp": (START + timedelta(seconds=2)).isoformat()})
    with Client311(server.mqtt_port, made["username"], made["password"]) as device:
        device.publish(f"{made['topic']}/endpoints/{'p' * 100}", json.dumps({"readings": points}).encode())
    until(lambda: client.get("/ingestion/ledger").json()["readings"]["stored"] == 3)
    (row,) = client.get(f"/readings/{made['uuid']}/summary").json()["metrics"]
    assert (row["max"], row["avg"], row["protocol"]) == (1.7e308, None, "p" * 64)
    (bucket,) = query(client, made, interval="1h", agg="sum").json()["readings"]
    assert bucket["value"] is None
    (bucket,) = query(client, made, interval="1h", agg="last").json()["readings"]
    assert bucket["value"] == 3


def test_a_request_that_does_not_come_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, or only the half of a head, is closed."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    port = free_port()

    async def answer(sent: bytes, after: bytes = b"") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        if after:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(after)
        async with asyncio.timeout(5):
            got = await reader.read()
        writer.close()
        return got

    async def ask() -> list[bytes]:
        stop = asyncio.Event()
        listener = listening_socket.open_socket("127.0.0.1", port, "X", {})
        serving = asyncio.create_task(http.serve(Litestar(), stop, listener=listener))
        await asyncio.sleep(0)
        requests = (b"", b"GET / HTTP/1.1\r\nHost: x", b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = [await answer(request) for request in requests]
        await answer(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n")  # what begins no request
        stop.set()
        await serving
        listener.close()
        return answers

    silent, half, whole = asyncio.run(ask())
    assert (silent, half) == (b"", b"")
    assert whole.startswith(b"HTTP/1.1 404")
