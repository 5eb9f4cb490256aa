"""What is kept, shown and erased, as operators see it; and queries that take too long."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.serving import Served, served, until

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    with served(IOTISTICA_QUERY_SECONDS="1") as server:
        yield server


def put(client: httpx.Client, agent: str, *days: int, metric: str = "m") -> None:
    points = [
        {"metric": metric, "device_name": "d", "value": day, "timestamp": (NOW - timedelta(days=day)).isoformat()}
        for day in days
    ]
    answer = client.post(f"/readings?agent={agent}", content=json.dumps({"readings": points}))
    assert answer.status_code == 202, answer.text


def values(client: httpx.Client, agent: str, metric: str = "d.m") -> list[float]:
    asked: dict[str, Any] = {"metric": metric, "start": "400d"}
    answer = client.get(f"/readings/{agent}/timeseries", params=asked)
    assert answer.status_code == 200, answer.text
    return [row["value"] for row in answer.json()["readings"]]


def test_a_tenant_is_shown_its_own_days_at_once(own: Served) -> None:
    """By every route; what is older is deleted behind it, and the newest stay."""
    own.add_tenant("brief")
    agent = own.add_agent("brief")["uuid"]
    client = own.login("brief", "admin")
    put(client, agent, 30, 10, 1)
    until(lambda: values(client, agent) == [30, 10, 1])
    assert "Give either --days" in own.command("tenants", "keep", "brief").stderr
    assert own.command("tenants", "keep", "brief", "--days", "20").stdout == "brief keeps 20 days of readings\n"
    assert values(client, agent) == [10, 1]
    asked = {"metric": "d.m", "start": "400d", "interval": "1d", "agg": "count"}
    assert client.get(f"/readings/{agent}/timeseries", params=asked).json()["count"] == 2
    exported = client.get(f"/readings/{agent}/export", params={"start": "400d"}).text.splitlines()
    assert [line.split(",")[3] for line in exported[1:]] == ["10", "1"]
    until(lambda: _rows(own, agent) == 2, 60, "deleted")
    own.command("tenants", "keep", "brief", "--all")
    assert values(client, agent) == [10, 1]


def _rows(server: Served, agent: str) -> int:
    with psycopg.connect(server.runtime().database_url) as connection:
        row = connection.execute("SELECT count(*) FROM readings WHERE agent_uuid = %s", (agent,)).fetchone()
        return int(row[0]) if row else 0


def test_what_is_to_be_erased_is_erased(own: Served) -> None:
    """By device or metric; the list says how far it is, the audit who wanted it."""
    own.add_tenant("forgetful")
    agent = own.add_agent("forgetful")["uuid"]
    admin = own.login("forgetful", "admin")
    put(admin, agent, 5, 3, 1)
    put(admin, agent, 5, 3, metric="n")
    until(lambda: admin.get(f"/readings/{agent}/latest").json()["count"] == 2, what="both metrics are known")
    until(lambda: len(values(admin, agent)) == 3 and len(values(admin, agent, "d.n")) == 2)
    before = (NOW - timedelta(days=2)).isoformat()
    asked = admin.delete(f"/readings/{agent}", params={"metric": "d.m", "before": before})
    assert asked.status_code == 202, asked.text
    until(lambda: values(admin, agent) == [1], 60, "erased")
    done = until(lambda: _done(admin), 30, "done")
    assert (done["readings"], done["metric"], done["id"]) == (2, "d.m", asked.json()["id"])
    assert values(admin, agent, "d.n") == [5, 3]
    assert admin.get("/audit/events", params={"action": "readings"}).json()["events"][0]["subjectId"] == agent
    late = admin.delete(f"/readings/{agent}", params={"before": (NOW + timedelta(days=2)).isoformat()})
    assert late.status_code == 400


def _done(client: httpx.Client) -> dict[str, Any] | None:
    time.sleep(1)  # such requests are few a minute
    (one,) = client.get("/erasures").json()["erasures"]
    return one if one["doneAt"] else None


def test_a_query_that_takes_too_long_is_cut(own: Served) -> None:
    """With the reason and when to come again, and the next one is answered."""
    own.add_tenant("patient")
    agent = own.add_agent("patient")["uuid"]
    client = own.login("patient")
    asked = {"metric": "m", "start": "400d", "end": "1d", "interval": "1d"}
    with psycopg.connect(own.runtime().database_url) as connection:
        connection.execute("LOCK TABLE readings IN ACCESS EXCLUSIVE MODE")
        for _ in range(12):  # more than there are connections
            answer = client.get(f"/readings/{agent}/timeseries", params=asked)
            assert answer.status_code == 503
        assert "took too long" in answer.json()["detail"]
        assert answer.headers["retry-after"]
    assert client.get(f"/readings/{agent}/timeseries", params=asked).status_code == 200


@pytest.mark.built_in_postgres
def test_the_disk_is_told_of(own: Served) -> None:
    """On /health and by command."""
    storage = until(lambda: httpx.get(f"http://127.0.0.1:{own.http_port}/health").json().get("storage"), 30)
    assert storage["readings"] > 0
    assert storage["free"] > 0
    shown = own.command("disk").stdout
    assert "readings" in shown
    assert "free" in shown
