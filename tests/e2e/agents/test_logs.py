"""Logs of agents: taken by HTTP and MQTT, stored once, found again."""

import gzip
import json
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests import captured
from tests.devices import Device, key_for
from tests.serving import Served, until


@pytest.fixture(scope="module")
def operator(server: Served) -> httpx.Client:
    server.add_tenant("logs")
    return server.login("logs", "owner")


@pytest.fixture
def device(server: Served, operator: httpx.Client) -> Device:
    return Device(server).join(key_for(operator))


def send(device: Device, body: bytes, **headers: str) -> httpx.Response:
    url = f"{device.base}/device/{device.uuid}/logs"
    given = {"X-Device-API-Key": device.api_key, "content-type": "application/x-ndjson"}
    return httpx.post(url, content=body, headers=given | headers, timeout=30)


def lines(operator: httpx.Client, device: Device, **query: Any) -> list[dict[str, Any]]:
    answer = operator.get(f"/agents/{device.uuid}/logs", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["logs"]
    return found


def rows_of(recorded: dict[str, Any]) -> list[dict[str, Any]]:
    body = recorded["req_body"]
    return [
        json.loads(row) if isinstance(row, str) else row
        for row in (body if isinstance(body, list) else body.splitlines())
    ]


def ndjson(*rows: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_the_batches_of_the_public_agent_are_acknowledged_and_found(operator: httpx.Client, device: Device) -> None:
    """Each with its own id; one that comes again is accepted and stored once."""
    recorded = [one for one in captured.packets("first_boot_http") if one["path"].endswith("/logs")]
    assert recorded
    sent, then = 0, max(row["timestamp"] for one in recorded for row in rows_of(one))
    for one in recorded:
        rows = [row | {"timestamp": row["timestamp"] - then + round(time.time() * 1000)} for row in rows_of(one)]
        body = ndjson(*rows)
        sent += len(rows)
        batch = next(value for name, value in one["req_headers"] if name.lower() == "x-batch-id")
        compressed = gzip.compress(body)
        answer = send(device, compressed, **{"x-batch-id": batch, "content-encoding": "gzip"})
        assert (answer.status_code, answer.json()["batchId"]) == (202, batch)
        assert answer.json() | {"accepted": True, "queued": True} == answer.json()
        send(device, compressed, **{"x-batch-id": batch, "content-encoding": "gzip"})
    stored = until(lambda: len(f := lines(operator, device, limit=1000)) >= sent and f, what="the lines are there")
    assert len(stored) == sent
    again = send(device, body, **{"x-batch-id": batch})
    assert (again.status_code, again.json()) == (200, {"batchId": batch, "accepted": True, "duplicate": True})
    assert len(lines(operator, device, limit=1000)) == sent
    assert operator.get(f"/agents/{device.uuid}/logs/services").json()["services"]


def test_lines_are_found_by_service_level_time_and_text(operator: httpx.Client, device: Device) -> None:
    """The newest first, page by page; a range is half-open."""
    now = datetime.now(UTC).replace(microsecond=0)
    rows = [
        {
            "timestamp": (now - timedelta(minutes=n)).isoformat(),
            "level": level,
            "message": f"{text} {n}",
            "serviceName": name,
        }
        for n, (level, text, name) in enumerate(
            [
                ("info", "Started", "web"),
                ("error", "Refused", "web"),
                ("debug", "tick", "db"),
                ("warn", "Slow", "db"),
            ]
            * 3
        )
    ]
    assert send(device, json.dumps(rows).encode(), **{"content-type": "application/json"}).status_code == 202
    until(lambda: len(lines(operator, device)) == 12, what="the lines are there")
    assert [row["message"] for row in lines(operator, device, limit=3)] == ["Started 0", "Refused 1", "tick 2"]
    assert {row["service"] for row in lines(operator, device, service="db")} == {"db"}
    assert [row["level"] for row in lines(operator, device, level="error")] == ["error"] * 3
    assert len(lines(operator, device, level="warn")) == 6
    assert [row["message"] for row in lines(operator, device, search="REFUSED")] == [
        "Refused 1",
        "Refused 5",
        "Refused 9",
    ]
    window = {"from": (now - timedelta(minutes=5)).isoformat(), "to": (now - timedelta(minutes=2)).isoformat()}
    assert [row["message"] for row in lines(operator, device, **window)] == ["Slow 3", "Started 4", "Refused 5"]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = operator.get(f"/agents/{device.uuid}/logs", params=query).json()
        seen += [row["message"] for row in page["logs"]]
        if (cursor := page["next"]) is None:
            break
    assert len(seen) == len(set(seen)) == 12
    assert operator.get(f"/agents/{device.uuid}/logs/services").json() == {"services": ["db", "web"]}
    assert operator.get(f"/agents/{device.uuid}/logs", params={"level": "loud"}).status_code == 400


def test_lines_by_mqtt_are_those_of_their_container(operator: httpx.Client, device: Device) -> None:
    """The topic says whose they are, unless they do."""
    with device.connect() as client:
        client.publish(f"{device.topic}/logs/nginx", b'{"message":"GET /","stream":"stderr","level":"notice"}')
        client.publish(
            f"{device.topic}/logs/nginx", zlib.compress(b'[{"message":"two","containerName":"sidecar"}]')
        )
        client.publish(f"{device.topic}/logs/nginx", b"[1]")
    found = until(lambda: len(f := lines(operator, device)) == 2 and f, what="both lines are there")
    assert {(row["service"], row["message"], row["level"], row["isStderr"]) for row in found} == {
        ("nginx", "GET /", "info", True),
        ("sidecar", "two", "info", False),
    }
    letters = until(lambda: operator.get("/ingestion/dead-letters").json()["deadLetters"], what="a dead letter")
    assert [letter["reason"] for letter in letters] == ["unknown_shape"]
    assert operator.post("/ingestion/dead-letters/discard", json={"ids": [letters[0]["id"]]}).status_code == 200
    ledger = operator.get("/ingestion/ledger").json()["payloads"]
    assert ledger["takenIn"] == ledger["processed"] + ledger["waiting"] + ledger["deadLettered"]


def test_a_large_batch_is_taken_in_parts(operator: httpx.Client, device: Device) -> None:
    """More than one message can carry; the same batch again is known all the same."""
    rows = [{"message": f"{n} " + "x" * 2000} for n in range(1000)]
    body = gzip.compress(ndjson(*rows))
    headers = {"x-batch-id": "large", "content-encoding": "gzip"}
    assert send(device, body, **headers).json() == {
        "batchId": "large",
        "accepted": True,
        "queued": True,
        "lines": 1000,
        "dropped": 0,
    }
    send(device, body, **headers)
    until(lambda: len(lines(operator, device, limit=1000)) == 1000, what="the lines are there")
    assert send(device, body, **headers).status_code == 200
    assert len(lines(operator, device, limit=1000)) == 1000


def test_what_is_no_batch_is_refused_and_an_empty_one_accepted(operator: httpx.Client, device: Device) -> None:
    """The public agent sends a batch again until it is answered with its id."""
    assert send(device, b"", **{"x-batch-id": "empty"}).json()["batchId"] == "empty"
    for body in (b"[1,2]", b'{"message":'):
        assert send(device, body).status_code == 400
    bomb = gzip.compress(b" " * (64 << 20))
    assert send(device, bomb, **{"content-encoding": "gzip"}).status_code == 413
    long = "b" * 500
    assert send(device, b"text", **{"x-batch-id": long}).json()["batchId"] == long
    until(lambda: send(device, b"text", **{"x-batch-id": long}).status_code == 200, what="it is known")
    assert [row["message"] for row in lines(operator, device)] == ["text"]


def test_what_is_logged_beside_a_line_shows_no_secret(operator: httpx.Client, device: Device) -> None:
    """Found by their names, as everywhere; a compressed body is recognized even if it does not say so."""
    line = {"message": "login", "context": {"user": "admin", "password": "hunter2"}}
    assert send(device, json.dumps(line).encode()).status_code == 202
    (found,) = until(lambda: operator.get(f"/agents/{device.uuid}/logs").json()["logs"])
    assert found["meta"] == {"user": "admin", "password": "********"}
    assert send(device, gzip.compress(b"a line")).json()["lines"] == 1


def test_lines_that_an_agent_threw_away_are_on_its_timeline(operator: httpx.Client, device: Device) -> None:
    """Nobody looks for them then."""
    url = f"{device.base}/device/{device.uuid}/logs/dropped-summaries"
    body = {"summaries": [{"totalCount": 7}, {"totalCount": 5}], "reportedAt": "now"}
    answer = httpx.post(url, json=body, headers={"X-Device-API-Key": device.api_key})
    assert answer.json() == {"status": "ok", "received": 2}
    happened = operator.get(f"/agents/{device.uuid}/timeline", params={"kind": "logs.dropped"}).json()
    assert [row["details"] for row in happened["happenings"]] == [{"lines": 12}]
