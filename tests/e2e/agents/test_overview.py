"""The state of a tenant in one answer, and the map of its agents."""

import json

import httpx
import pytest

from tests.mqtt311 import Client311
from tests.serving import Served, until


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("overview")
    return server.login("overview", "owner")


def test_the_numbers_are_those_of_the_tenant_alone(server: Served, owner: httpx.Client) -> None:
    """Agents by presence, readings a second, dead letters; another tenant sees zeros."""
    made = server.add_agent("overview")
    server.add_agent("overview")
    with Client311(server.mqtt_port, made["username"], made["password"]) as device:
        device.publish(
            f"{made['topic']}/endpoints/x", json.dumps([{"metric": "m", "value": n} for n in range(9)]).encode()
        )
        device.publish(f"{made['topic']}/endpoints/x", b"{nonsense")

        def seen() -> bool:
            found = owner.get("/overview").json()
            agents, waiting = found["agents"], found["ingestion"]
            return (agents["online"], agents["new"], waiting["deadLetters"]) == (1, 1, 1)

        until(seen, 30, "presence and the dead letter are counted")
        device.publish(f"{made['topic']}/endpoints/x", b'{"metric":"m","value":1}')
        until(lambda: owner.get("/overview").json()["readingsPerSecond"] > 0, 30, "a rate")
    server.add_tenant("overview-strangers")
    other = server.login("overview-strangers").get("/overview").json()
    assert other["agents"] == {"online": 0, "silent": 0, "offline": 0, "new": 0, "flapping": 0, "failing": 0}
    assert (other["readingsPerSecond"], other["ingestion"]["deadLetters"]) == (0, 0)


def test_the_map_has_each_agent_once_with_its_worst_incident(server: Served, owner: httpx.Client) -> None:
    """By name; with the fleet and the tag that is asked for; retired agents and those out of service are left out."""
    fleet = owner.post("/fleets", json={"name": "hall 3"}).json()["fleetUuid"]
    names = ("Zeta", "alpha", "gone")
    agents = {
        name: owner.post("/agents", json={"name": name, "fleetUuid": fleet}).json()["agent"]["uuid"]
        for name in names
    }
    owner.post(f"/agents/{agents['alpha']}/tags", json={"key": "site", "value": "berlin"})
    owner.patch(f"/agents/{agents['gone']}/active", json={"is_active": False})
    for severity in ("info", "critical", "warning"):
        rule = {
            **{"name": severity, "severity": severity, "forSeconds": 0, "scope": {"agent": agents["alpha"]}},
            "condition": {"kind": "threshold", "above": 1},
        }
        assert owner.post("/anomaly/rules", json=rule).status_code == 201

    def worst() -> object:
        reading = [{"metric": "t", "value": 9}]
        owner.post("/readings", params={"agent": agents["alpha"]}, json={"readings": reading})
        found = owner.get("/overview/map", params={"tag": "site"}).json()
        return found["incident"][found["uuid"].index(agents["alpha"])]

    until(lambda: worst() == "critical", 30, "the worst of three incidents is shown")
    found = owner.get("/overview/map", params={"tag": "site"}).json()
    shown = [name for name in found["name"] if name in names]
    assert shown == ["alpha", "Zeta"]
    at = found["uuid"].index(agents["alpha"])
    assert (found["fleet"][at], found["tag"][at], found["status"][at]) == (fleet, "berlin", found["status"][at])
    assert owner.get("/overview/map").json()["tag"][at] is None
    assert found["cut"] is False
