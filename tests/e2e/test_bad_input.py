"""Whatever is wrong is counted with a reason, and costs nothing that is right."""

import contextlib
import json
import secrets
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import redis

from iotistica.domain.agents.broker_passwords import password_line
from tests.mqtt311 import Client311
from tests.serving import Served, until


def now(ahead: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=ahead)).isoformat()


def good(metric: str = "good") -> dict[str, Any]:
    return {"metric": metric, "value": 1.5, "timestamp": now()}


def balance(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/ingestion/ledger").json())


def dead_letters(server: Served, tenant: str) -> list[dict[bytes, bytes]]:
    with redis.Redis.from_url(server.runtime().redis_url, protocol=2) as connection:
        return [fields for _, fields in connection.xrange(f"tenant:{{{tenant}}}:agent:devices:dlq")]


# What is wrong about a reading, and the reason it is rejected with.
REJECTED = {
    "too_old": {"metric": "old", "value": 1, "timestamp": "1970-01-01T00:00:01Z"},
    "future": {"metric": "new", "value": 1, "timestamp": "2100-01-01T00:00:00Z"},
    "bad_time": {"metric": "when", "value": 1, "timestamp": "yesterday"},
    "name_too_long": {"metric": "m" * 5000, "value": 1},
    "no_metric": {"value": 1},
    "bad_name": {"metric": {"a": 1}, "value": 1},
    "not_an_object": 17,
}


SHAPES: tuple[Callable[[list[Any]], Any], ...] = (
    lambda batch: {"messages": [{"readings": batch}]},
    lambda batch: {"readings": batch},
    lambda batch: batch,
    lambda batch: {"data": {"readings": batch}},
)


@pytest.mark.parametrize("reason", REJECTED)
def test_a_bad_reading_is_rejected_alone(server: Served, reason: str) -> None:
    """The good readings around it are stored, in every accepted shape."""
    tenant = server.add_tenant(f"reject {reason}")
    agent, client = server.add_agent(tenant), server.login(tenant)
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        for number, shape in enumerate(SHAPES):
            batch = [good(f"before {number}"), REJECTED[reason], good(f"after {number}")]
            device.publish(f"{agent['topic']}/endpoints/modbus", json.dumps(shape(batch)).encode())
    until(lambda: balance(client)["readings"]["found"] == 12, what="all found")
    readings = balance(client)["readings"]
    assert readings["rejectedByReason"] == {reason: 4}
    assert (readings["stored"], readings["rejected"]) == (8, 4)


BROKEN = {
    "truncated_deflate": zlib.compress(json.dumps({"readings": [good()]}).encode())[:-9],
    "too_large": zlib.compress(b"[" + b" " * (200 << 20) + b"]"),
    "too_deep": b"[" * 100_000 + b"]" * 100_000,
    "nested_wrapper": zlib.compress(zlib.compress(b"{}")),
    "bad_json": b"{'readings': 1",
    "bad_msgpack": b"\xdd\xff\xff\xff\xff",
    "unknown_shape": b'{"hello": "world"}',
    "empty": b"",
}


def test_a_broken_payload_is_a_dead_letter_and_its_neighbours_are_stored(server: Served) -> None:
    """Bytes that cannot be understood are kept as they came, with the reason."""
    tenant = server.add_tenant("broken")
    agent, client = server.add_agent(tenant), server.login(tenant)
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        for payload in BROKEN.values():
            device.publish(f"{agent['topic']}/endpoints/modbus", payload)
            device.publish(f"{agent['topic']}/endpoints/modbus", json.dumps({"readings": [good()]}).encode())
    until(lambda: balance(client)["payloads"]["waiting"] == 0 and balance(client)["readings"]["stored"] == 8)
    payloads = balance(client)["payloads"]
    assert payloads == {"takenIn": 16, "processed": 8, "waiting": 0, "deadLettered": 8}
    kept = {letter[b"reason"].decode(): letter[b"payload"] for letter in dead_letters(server, tenant)}
    assert kept == BROKEN


def test_odd_values_are_repaired_as_stated(server: Served) -> None:
    """NaN, infinities, numbers of any size, NUL, bad UTF-8 and foreign UUIDs cost neither reading nor batch."""
    tenant = server.add_tenant("odd")
    agent, client = server.add_agent(tenant), server.login(tenant)
    stamp = now()
    document = (
        f'{{"timestamp":"{stamp}","readings":['
        '{"metric":"nan","value":NaN},{"metric":"inf","value":-Infinity},{"metric":"huge","value":1e400},'
        f'{{"metric":"integer","value":1{"0" * 400}}},'
        '{"metric":"nul","value":"a\\u0000b","unit":"m\\u0000"},{"metric":"utf8","value":"BAD"},'
        '{"metric":"uuid","value":7,"device_uuid":"none of the kind"},'
        '{"metric":"text","value":"12.5"},{"metric":"bool","value":true},{"metric":"null","value":null}]}'
    ).encode()
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/modbus", document.replace(b"BAD", b"\xff\xfe"))
    until(lambda: balance(client)["readings"]["stored"] == 10, what="all stored")
    rows = client.get(f"/readings/{agent['uuid']}/latest").json()["readings"]
    got = {row["metric_name"]: row for row in rows}
    for name in ("nan", "inf", "huge", "integer"):
        assert (got[name]["value"], got[name]["quality"]) == (None, "bad")
        assert "raw" in got[name]["extra"]
    assert (got["nul"]["extra"]["text"], got["nul"]["unit"]) == ("ab", "m")
    assert got["utf8"]["extra"]["text"] == "\ufffd\ufffd"
    assert (got["uuid"]["value"], "device_uuid" in got["uuid"]["extra"]) == (7.0, False)
    assert (got["text"]["value"], got["bool"]["value"], got["null"]["value"]) == (12.5, 1.0, None)


def test_a_message_over_the_cap_is_kept_by_head_and_hash_and_a_giant_never_arrives(server: Served) -> None:
    """Above 1 MiB a payload is not stored whole; above 2 MiB the broker cuts the sender off."""
    tenant = server.add_tenant("giants")
    agent, client = server.add_agent(tenant), server.login(tenant)
    topic = f"{agent['topic']}/endpoints/modbus"
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(topic, b"x" * (1 << 20) + b"y")
        with contextlib.suppress(OSError):
            device.publish(topic, b"z" * (20 << 20))
            device.publish(topic, b"after")
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(topic, json.dumps(good()).encode())
    until(lambda: balance(client)["readings"]["stored"] == 1, what="the good reading")
    assert balance(client)["payloads"] == {"takenIn": 2, "processed": 1, "waiting": 0, "deadLettered": 1}
    (letter,) = dead_letters(server, tenant)
    assert letter[b"reason"] == b"too_large"
    assert letter[b"payload"] == b"x" * 1024
    assert b"1048577 bytes, sha256 " in letter[b"detail"]


def test_topics_of_nobody_are_kept_aside_by_the_platform(server: Served) -> None:
    """Ids that are none, and a tenant nobody has, go to the platform's own dead letters."""
    users = {"bad/a/x": b"bad_topic", "AAAAAAAA/a/VQ6EAOKbQdSnFkRmVUQAAA": b"unknown_tenant"}
    with psycopg.connect(server.runtime().database_url) as connection:
        for user in users:
            line = password_line(user, "secret", secrets.token_bytes(12))
            connection.execute("INSERT INTO broker_accounts (username, line) VALUES (%s, %s)", (user, line))
    word = secrets.token_hex(8).encode()
    for user in users:

        def published(user: str = user) -> bool:
            with contextlib.suppress(Exception), Client311(server.mqtt_port, user, "secret") as device:
                device.publish(f"i/{user}/endpoints/modbus", word)
                return True
            return False

        until(published, what="the account to be rendered")

    def letters() -> dict[bytes, bytes]:
        with redis.Redis.from_url(server.runtime().redis_url, protocol=2) as connection:
            found = [fields for _, fields in connection.xrange("platform:dlq")]
        return {f[b"topic"]: f[b"reason"] for f in found if f[b"payload"] == word}

    wanted = {f"i/{user}/endpoints/modbus".encode(): reason for user, reason in users.items()}
    until(lambda: letters() == wanted, what="both letters")


def test_an_unknown_agent_of_a_known_tenant_is_a_dead_letter(server: Served) -> None:
    """An agent that its tenant does not know stores nothing, and its bytes are kept."""
    tenant = server.add_tenant("forgetful")
    agent, client = server.add_agent(tenant), server.login(tenant)
    with psycopg.connect(server.runtime().database_url) as connection:
        connection.execute("UPDATE broker_accounts SET agent_uuid = NULL WHERE username = %s", (agent["username"],))
        connection.execute("DELETE FROM agents WHERE agent_uuid = %s", (agent["uuid"],))
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/modbus", b"anything")
    until(lambda: balance(client)["payloads"]["deadLettered"] == 1, what="the dead letter")
    assert dead_letters(server, tenant)[0][b"reason"] == b"unknown_agent"


def test_a_clock_ten_minutes_fast_loses_none_of_twelve_polls(server: Served) -> None:
    """Readings dated ahead are stored as dated, marked uncertain, and left out of latest until their time."""
    tenant = server.add_tenant("fast clock")
    agent, client = server.add_agent(tenant), server.login(tenant)
    polls = [now(600 + second) for second in range(12)]
    messages = [{"timestamp": when, "readings": [{"metric": "fast", "value": n}]} for n, when in enumerate(polls)]
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/modbus", json.dumps({"messages": messages}).encode())
    until(lambda: balance(client)["readings"]["stored"] == 12, what="all stored")
    query = {"metric": "fast", "start": now(), "end": now(3600)}
    rows = client.get(f"/readings/{agent['uuid']}/timeseries", params=query).json()["readings"]
    assert [row["value"] for row in rows] == list(range(12))
    assert {row["quality"] for row in rows} == {"uncertain"}
    assert client.get(f"/readings/{agent['uuid']}/latest").json()["readings"] == []
