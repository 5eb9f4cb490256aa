"""One list says what happened to an agent, from its first connection on."""

import time
from typing import Any

import httpx
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("timelines")
    return server.login("timelines", "owner")


def happened(owner: httpx.Client, device: Device) -> list[dict[str, Any]]:
    answer = owner.get(f"/agents/{device.uuid}/timeline")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["happenings"]
    return rows[::-1]


def test_an_agents_way_is_one_list(server: Served, owner: httpx.Client) -> None:
    """It registered, connected, was told what to run and fetched it, connected twice at once, got a new key."""
    device = Device(server).join(key_for(owner))
    target = {"config": {"logging": {"level": "debug"}}, "apps": {}}
    assert owner.put(f"/agents/{device.uuid}/target-state", json=target).status_code == 200
    told = device.get(f"/device/{device.uuid}/state")
    with device.connect(), device.connect() as client:
        version = told.json()[device.uuid]["version"]
        state = f'{{"{device.uuid}": {{"version": {version}, "apps": {{}}}}}}'
        client.publish(f"{device.topic}/state", state.encode())
        time.sleep(0.2)
    assert owner.post(f"/device/{device.uuid}/rotate-key", json={}).status_code in (200, 201)
    wanted = {
        "agent.registered",
        "agent.proven",
        "target.written",
        "target.deployed",
        "target.fetched",
        "target.reported",
        "broker.connected",
        "broker.taken_over",
        "broker.left",
        "agent.key_rotated",
    }

    def is_told() -> bool:
        time.sleep(0.2)  # the limit of requests a minute
        return wanted <= {row["kind"] for row in happened(owner, device)}

    until(is_told, 40, "all of it is told")
    by_kind = {row["kind"]: row for row in happened(owner, device)}
    assert by_kind["target.fetched"]["details"] == {"version": version}
    assert by_kind["target.reported"]["details"]["version"] == version
    assert by_kind["target.written"]["details"]["by"]["kind"] == "user"
    assert by_kind["broker.connected"]["details"] == {"address": "127.0.0.1", "protocol": "MQTT 3.1.1"}
    assert by_kind["broker.connected"]["times"] >= 2
    assert "password" not in str(by_kind).lower()
