"""What is taken in and what became of it, seen and dealt with from outside."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.devices import Device, key_for
from tests.mqtt311 import Client311
from tests.serving import Served, until


@pytest.fixture(scope="module")
def tenant(server: Served) -> str:
    return server.add_tenant("delivery")


@pytest.fixture(scope="module")
def agent(server: Served, tenant: str) -> dict[str, str]:
    return server.add_agent("delivery")


@pytest.fixture(scope="module")
def manager(server: Served, tenant: str) -> httpx.Client:
    return server.login("delivery", "manager")


def letters(client: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    return list(client.get("/ingestion/dead-letters", params=filters).json()["deadLetters"])


def test_dead_letters_are_listed_read_replayed_and_discarded(
    server: Served, agent: dict[str, str], manager: httpx.Client
) -> None:
    """By API; a replay of what is still bad comes back with one more attempt, and each is dealt with once."""
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/x", b"{bad")
        device.publish(f"{agent['topic']}/endpoints/x", b"\x78\x9c\xff\xff")
    until(lambda: len(letters(manager)) == 2, what="two dead letters")
    (json_,) = letters(manager, reason="bad_json")
    (deflate,) = letters(manager, reason="bad_deflate", agent=agent["uuid"].upper())
    assert (json_["agentUuid"], json_["attempts"], json_["size"], json_["whole"]) == (agent["uuid"], 1, 4, True)
    assert json_["topic"] == f"{agent['topic']}/endpoints/x"
    opened = manager.get(f"/ingestion/dead-letters/{json_['id']}").json()
    assert (opened["text"], opened["payload"]) == ("{bad", "e2JhZA==")
    assert manager.get(f"/ingestion/dead-letters/{deflate['id']}").json()["text"] is None
    assert manager.get("/ingestion/dead-letters/1-1").status_code == 404

    done = manager.post("/ingestion/dead-letters/replay", json={"ids": [json_["id"], "1-1"]}).json()
    assert done == {"done": 1, "chosen": 1, "more": False}
    again = until(lambda: letters(manager, reason="bad_json"), what="it fails again")
    assert [letter["attempts"] for letter in again] == [2]
    assert manager.post("/ingestion/dead-letters/replay", json={"ids": [json_["id"]]}).json()["done"] == 0

    assert manager.post("/ingestion/dead-letters/discard", json={"reason": "bad_deflate"}).json()["done"] == 1
    assert [letter["reason"] for letter in letters(manager)] == ["bad_json"]
    assert manager.post("/ingestion/dead-letters/discard", json={"all": True}).json()["done"] == 1
    assert letters(manager) == []
    payloads = manager.get("/ingestion/ledger").json()["payloads"]
    assert payloads == {"takenIn": 3, "processed": 0, "waiting": 0, "deadLettered": 3}


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": ["x"]}, {"all": False}, {"all": True, "reason": "x"}, {"x": 1}]
)
def test_what_is_not_said_clearly_is_refused(manager: httpx.Client, body: dict[str, Any]) -> None:
    """Neither replay nor discard guesses which letters are meant."""
    for action in ("replay", "discard"):
        answer = manager.post(f"/ingestion/dead-letters/{action}", json=body)
        assert answer.status_code == (200 if body == {"ids": []} else 400), answer.text


def test_an_operator_looks_and_does_not_discard(server: Served, tenant: str) -> None:
    """Reading is a viewer's, dealing with them a manager's."""
    viewer = server.login("delivery", "viewer")
    assert viewer.get("/ingestion/dead-letters").status_code == 200
    for action in ("replay", "discard"):
        assert viewer.post(f"/ingestion/dead-letters/{action}", json={"all": True}).status_code == 403


def test_dead_letters_by_command(server: Served, agent: dict[str, str], manager: httpx.Client) -> None:
    """Listed, shown as text or in hexadecimal, replayed, discarded; and said plainly when there are none."""
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/x", b"\x81\x01\xff\x1b[31m")
    (letter,) = until(lambda: letters(manager), what="a dead letter")

    def command(*arguments: str) -> str:
        done = server.command("dead-letters", *arguments, "--tenant", "delivery")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert letter["id"] in command("list")
    shown = command("show", letter["id"])
    assert letter["reason"] in shown
    assert "81 01 ff 1b 5b 33 31 6d" in shown
    assert "\x1b" not in shown
    assert command("replay", "--reason", letter["reason"]).startswith("1 replayed")
    until(lambda: [x["attempts"] for x in letters(manager)] == [2], what="it fails again")
    assert command("discard", "--all").startswith("1 discarded")
    assert command("list") == "(none)\n"
    missing = server.command("dead-letters", "show", "1-1", "--tenant", "delivery")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    unclear = server.command("dead-letters", "discard", "--tenant", "delivery")
    assert unclear.returncode == 2
    assert "exactly one of" in unclear.stderr


def test_readings_by_http_go_the_same_way(server: Served, tenant: str, agent: dict[str, str]) -> None:
    """By an operator for an agent it names, by an agent for itself; durable when it is answered."""
    operator = server.login("delivery", "operator")
    point = {"metric": "http", "value": 1.5, "timestamp": datetime.now(UTC).isoformat()}
    answer = operator.post("/readings", params={"agent": agent["uuid"]}, json={"readings": [point, 17]})
    assert (answer.status_code, answer.json()) == (
        202,
        {"agentUuid": agent["uuid"], "accepted": 1, "rejected": {"not_an_object": 1}},
    )
    path = f"/readings/{agent['uuid']}/timeseries"
    until(lambda: operator.get(path, params={"metric": "http"}).json().get("count") == 1, what="stored")

    device = Device(server).join(key_for(server.login("delivery", "owner")))
    headers = {"X-Device-API-Key": device.api_key}
    url = f"{device.base}/readings"
    mine = httpx.post(url, headers=headers, json=point)
    assert (mine.status_code, mine.json()["agentUuid"]) == (202, device.uuid)
    foreign = httpx.post(url, headers=headers, params={"agent": agent["uuid"]}, json=point)
    assert foreign.status_code == 404


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"{bad", "bad_json"),
        (b"", "empty"),
        (b'{"hello":"you"}', "unknown_shape"),
        (b'{"v":1,"p":[[0,1]]}', "compacted"),
        (b"[" + b" " * (1 << 20) + b"]", "bytes"),
    ],
)
def test_bad_readings_by_http_are_refused_with_the_reason(
    server: Served, agent: dict[str, str], content: bytes, wanted: str
) -> None:
    """Nothing of them is taken in."""
    operator = server.login("delivery", "operator")
    before = operator.get("/ingestion/ledger").json()["payloads"]
    answer = operator.post("/readings", params={"agent": agent["uuid"]}, content=content)
    assert answer.status_code == 400
    assert wanted in answer.json()["detail"]
    nobody = operator.post("/readings", json={"metric": "m", "value": 1})
    assert (nobody.status_code, nobody.json()["errors"][0]["path"]) == (400, "agent")
    assert operator.get("/ingestion/ledger").json()["payloads"] == before


def test_messages_that_never_arrived_are_named(server: Served, tenant: str) -> None:
    """By the numbers in their ids, in whatever order the others come; of the public agent nothing is claimed."""
    agent = server.add_agent("delivery")
    viewer = server.login("delivery", "viewer")
    path = f"/agents/{agent['uuid']}/gaps"
    nothing = viewer.get(path).json()
    assert (nothing["counted"], nothing["arrived"], nothing["gaps"]) == (False, 0, [])
    now = datetime.now(UTC) - timedelta(minutes=1)
    start = int(now.timestamp() * 1000)
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        for number in (1, 2, 5, 6, 9, 3):
            point = {
                "metric": "m",
                "value": number,
                "timestamp": (now + timedelta(milliseconds=number)).isoformat(),
            }
            message = {"readings": [point], "msgId": f"{agent['uuid']}-{start + number * 10}-{number}-abcd"}
            device.publish(f"{agent['topic']}/endpoints/x", json.dumps(message).encode())
    found = until(lambda: (g := viewer.get(path).json())["arrived"] == 6 and g, what="six numbers")
    assert [(gap["first"], gap["last"], gap["count"]) for gap in found["gaps"]] == [(4, 4, 1), (7, 8, 2)]
    assert (found["counted"], found["missing"]) == (True, 3)
    assert viewer.get(path, params={"start": "5s"}).json()["gaps"] == []
    assert server.login().get(path).status_code == 404


def test_health_shows_breakers_spools_workers_and_alarms(server: Served) -> None:
    """What an operator looks at first, without secrets."""
    health = httpx.get(f"http://127.0.0.1:{server.http_port}/health").json()
    assert health["database"]["breaker"] == health["redis"]["breaker"] == health["broker"]["breaker"] == "closed"
    assert health["workers"] == {"running": 2, "least": 2, "most": 4}
    for spool in ("mqtt", "http"):
        assert health["spools"][spool] == {"messages": 0, "bytes": 0, "cap": 1 << 30}
    metrics = httpx.get(f"http://127.0.0.1:{server.http_port}/metrics").text
    for name in (
        "iotistica_breaker",
        "iotistica_spool_bytes",
        "iotistica_ingest_workers",
        "iotistica_ledger_imbalance",
    ):
        assert f"\n{name}" in metrics
    until(
        lambda: "iotistica_broker_stored_bytes" in httpx.get(f"http://127.0.0.1:{server.http_port}/metrics").text,
        30,
    )
