"""An agent is told to update itself, and what it answers is followed."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.devices import Device, key_for
from tests.mqtt311 import Client311
from tests.serving import Served, served, until

SECRET = "a secret that the agents share"


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    with served(IOTISTICA_UPDATE_SECRET=SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def operator(own: Served) -> httpx.Client:
    return own.login(None)


@pytest.fixture
def device(own: Served, operator: httpx.Client) -> Device:
    return Device(own).join(key_for(operator))


def command(operator: httpx.Client, device: Device, **wanted: Any) -> httpx.Response:
    return operator.post(f"/agents/{device.uuid}/update-agent", json={"version": "1.0.548", **wanted})


def answer(client: Client311, device: Device, type_: str, **facts: Any) -> None:
    content = {"type": type_, "timestamp": round(time.time() * 1000), "msgId": f"{type_}-{time.time_ns()}", **facts}
    client.publish(f"{device.topic}/agent/status", json.dumps(content).encode(), retain=True)


def newest(operator: httpx.Client, device: Device) -> dict[str, Any]:
    found: dict[str, Any] = operator.get(f"/agents/{device.uuid}/updates").json()["updates"][0]
    return found


def kinds(operator: httpx.Client, device: Device) -> list[str]:
    rows = operator.get(f"/agents/{device.uuid}/timeline").json()["happenings"]
    joined = ("agent.registered", "agent.proven")
    kinds = [row["kind"] for row in reversed(rows)]
    return [kind for kind in kinds if kind.startswith("agent.") and kind not in joined]


def test_a_command_arrives_signed_and_its_answers_are_followed(operator: httpx.Client, device: Device) -> None:
    """To its end; what the broker gives again changes nothing."""
    with device.connect() as client:
        client.subscribe(f"{device.topic}/agent/update")
        made = command(operator, device, force=True)
        assert (made.status_code, made.json()["status"]) == (202, "commanded")
        (content,) = client.messages(1)
        told = json.loads(content)
        signed = f"update|1.0.548|{told['issued_at']}|{told['expires_at']}||true"
        assert told["signature"] == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
        answer(client, device, "update_command_received")
        until(lambda: newest(operator, device)["status"] == "received", what="it is received")
        answer(client, device, "preflight_started", target_version="1.0.548")
        answer(client, device, "update_failed", error="disk full", exit_code=3)
        failed = until(lambda: (u := newest(operator, device))["status"] == "failed" and u, what="it failed")
        assert failed["reason"] == "disk full, exit code 3"
        answer(client, device, "update_command_received")
        answer(client, device, "startup", version="1.0.548")
    until(lambda: "agent.startup" in kinds(operator, device), what="the start is on the timeline")
    assert newest(operator, device)["status"] == "failed"
    wanted = ["update_commanded", "update_command_received", "preflight_started", "update_failed", "startup"]
    assert kinds(operator, device) == [f"agent.{name}" for name in wanted]


def test_a_command_is_never_retained(operator: httpx.Client, device: Device) -> None:
    """An agent that connects later would run it at each of its starts."""
    with device.connect() as client:
        client.subscribe(f"{device.topic}/agent/update")
        assert command(operator, device).status_code == 202
        client.messages(1)
    with device.connect() as later:
        later.subscribe(f"{device.topic}/agent/update")
        assert command(operator, device, version="1.0.549").status_code == 202
        (content,) = later.messages(1)
    assert json.loads(content)["version"] == "1.0.549"
    first, second = operator.get(f"/agents/{device.uuid}/updates").json()["updates"][::-1]
    assert (first["status"], second["status"]) == ("superseded", "commanded")


def test_an_agent_that_reports_the_version_has_succeeded(operator: httpx.Client, device: Device) -> None:
    """Though it never said so: it was restarted by the update."""
    assert command(operator, device).status_code == 202
    body = {device.uuid: {"version": 1, "agent_version": "1.0.548"}}
    headers = {"X-Device-API-Key": device.api_key}
    assert httpx.patch(f"{device.base}/device/state", headers=headers, json=body).status_code == 200
    until(lambda: newest(operator, device)["status"] == "succeeded", 40, "it has succeeded")
    assert "agent.update_succeeded" in kinds(operator, device)


def test_what_is_no_version_or_no_time_is_refused(operator: httpx.Client, device: Device) -> None:
    """Nothing is sent then, and nothing is written."""
    for wrong, path in (
        ({"version": "1; reboot"}, "version"),
        ({"scheduled_time": "2020-01-01T00:00:00Z"}, "scheduled_time"),
        ({"scheduled_time": "2999-01-01T00:00:00Z"}, "scheduled_time"),
    ):
        refused = command(operator, device, **wrong)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, path)
    assert operator.get(f"/agents/{device.uuid}/updates").json()["updates"] == []
    operator.post(f"/agents/{device.uuid}/revoke")
    assert command(operator, device).status_code == 409


def test_no_agent_can_write_the_history_of_the_platform(operator: httpx.Client, device: Device) -> None:
    """An agent that says that somebody has revoked it is told as saying so; the name that it gives is left out."""
    with device.connect() as client:
        answer(client, device, "revoked", by={"kind": "user", "name": "admin@example.com"}, reason="so it says")
        until(lambda: "agent.reported_revoked" in kinds(operator, device), what="it is on the timeline")
    rows = operator.get(f"/agents/{device.uuid}/timeline").json()["happenings"]
    (told,) = (row for row in rows if row["kind"] == "agent.reported_revoked")
    assert told["details"] == {"reason": "so it says"}
    assert "agent.revoked" not in kinds(operator, device)
