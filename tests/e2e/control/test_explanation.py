"""Why an agent is not doing what it was told; and its apps and endpoints, changed one by one."""

import json
from typing import Any

import httpx
import pytest

from tests import captured
from tests.devices import Device, key_for
from tests.e2e.control.test_targets import CONNECTION, ENDPOINT, poll, put, told
from tests.serving import Served, until


@pytest.fixture(scope="module")
def operator(server: Served) -> httpx.Client:
    server.add_tenant("explain")
    return server.login("explain", "owner")


@pytest.fixture
def device(server: Served, operator: httpx.Client) -> Device:
    return Device(server).join(key_for(operator))


def explain(operator: httpx.Client, device: Device, verdict: str) -> Any:
    """What is said of an agent, as soon as it is in this state."""

    def said() -> Any:
        answer = operator.get(f"/agents/{device.uuid}/target-state/explain")
        assert answer.status_code == 200, answer.text
        return (found := answer.json())["verdict"] == verdict and found

    return until(said, 30, verdict)


def report(device: Device, **values: Any) -> None:
    headers = {"X-Device-API-Key": device.api_key}
    body = {device.uuid: {"version": 2, "is_online": True, **values}}
    assert httpx.patch(f"{device.base}/device/state", headers=headers, json=body).status_code == 200


def test_each_reason_for_not_being_applied_has_its_word(operator: httpx.Client, device: Device) -> None:
    """From nothing wanted, over an agent that never asks, to one that has it and fails, and to one that is done."""
    assert "Nothing is deployed" in explain(operator, device, "nothing_wanted")["reason"]
    wanted = {"apps": {}, "config": {"endpoints": [ENDPOINT], "logging": {"level": "info"}}}
    assert put(operator, device, wanted).status_code == 200
    assert "has not started" in explain(operator, device, "silent")["reason"]
    report(device, apps={}, config={"logging": {"level": "debug"}})
    off = explain(operator, device, "polling_off")
    assert "target sync" in off["reason"]
    assert {one["path"]: one.get("reported") for one in off["differences"]} == {
        "config.logging.level": "debug",
        "config.endpoints": None,
    }
    until(lambda: told(device)["config"], what="the agent is told")
    fetched = explain(operator, device, "not_reported")
    assert fetched["poll"]["fetchedVersion"] == fetched["wanted"]["version"]
    assert fetched["wanted"]["own"]["deployedBy"]["name"] == "owner-explain@example.com"
    assert poll(device, poll(device).headers["etag"]).status_code == 304
    echo = {
        "id": told(device)["config"]["endpoints"][0]["uuid"],
        "name": "plc",
        "protocol": "modbus",
        "enabled": True,
    }
    broken = echo | {"connectionString": json.dumps(CONNECTION | {"password": "another"})}
    health = {"plc": {"status": "offline", "lastError": "ECONNREFUSED 10.0.0.9:502", "errorCount": 3}}
    config = {"logging": {"level": "info"}, "endpoints": [broken]}
    report(device, apps={}, config=config, endpoints_health=health)
    failing = explain(operator, device, "failing")
    assert "ECONNREFUSED" in failing["reason"]
    until(lambda: explain(operator, device, "failing")["poll"]["notModified"], what="the 304 is counted")
    (difference,) = failing["differences"]
    assert difference["path"].endswith(".connection.password")
    assert (difference["wanted"], difference["reported"]) == ("********", "********")
    fine = echo | {"connectionString": json.dumps(CONNECTION)}
    extra = {"id": "0d9c8b7a-6543-4210-9fed-cba987654321", "name": "found by itself", "protocol": "modbus"}
    report(device, config={"logging": {"level": "info"}, "endpoints": [fine, extra]}, endpoints_health={})
    done = explain(operator, device, "applied")
    assert (done["differences"], done["extraEndpoints"]) == ([], ["found by itself"])
    assert "hunter2" not in json.dumps(done)
    assert put(operator, device, wanted | {"config": {"logging": {"level": "warn"}}}).status_code == 200
    assert "next poll" in explain(operator, device, "not_fetched")["reason"]


def test_the_echo_of_the_public_agent_is_what_it_was_told(operator: httpx.Client, device: Device) -> None:
    """Its endpoints come back with other names for their keys; that is no difference."""
    exchanges = [one for one in captured.packets("first_boot_http") if one["path"].endswith("/state")]
    (document,) = next(one for one in exchanges if one["method"] == "GET")["resp_body"].values()
    (echoed,) = next(one for one in exchanges if one["method"] == "PATCH")["req_body"].values()
    assert put(operator, device, {"apps": {}, "config": document["config"]}).status_code == 200
    report(device, **echoed)
    assert explain(operator, device, "applied")["differences"] == []


def test_a_difference_names_the_target_that_it_comes_from(operator: httpx.Client, device: Device) -> None:
    """An agent's own, or its fleet's; and what its own one changes of the other is listed."""
    fleet = operator.post("/fleets", json={"name": "line 1"}).json()["fleetUuid"]
    assert operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": fleet}).status_code == 200
    shared = {"config": {"logging": {"level": "info"}, "features": {"enableDevicePublish": True}}}
    assert put(operator, fleet, shared).status_code == 200
    assert put(operator, device, {"config": {"logging": {"level": "debug"}}}).status_code == 200
    report(device, apps={}, config={})
    found = explain(operator, device, "polling_off")
    assert {one["path"]: one["source"] for one in found["differences"]} == {
        "config.logging": "own",
        "config.features": "fleet",
    }
    overrides = [{"path": "config.logging.level", "before": "info", "after": "debug"}]
    assert found["wanted"]["overrides"] == overrides
    assert found["wanted"]["fleet"]["uuid"] == fleet


APP = {"appId": 7, "appName": "web", "services": [{"serviceId": 1, "imageName": "nginx:1.27"}]}


@pytest.mark.parametrize("of", ["agents", "fleets"])
def test_apps_are_added_changed_and_taken_away_one_by_one(operator: httpx.Client, device: Device, of: str) -> None:
    """Each write is a version of the whole; the others stay as they are."""
    subject = device.uuid if of == "agents" else operator.post("/fleets", json={"name": "apps"}).json()["fleetUuid"]
    path = f"/{of}/{subject}/apps"
    first = operator.post(path, json=APP)
    assert (first.status_code, first.json()["deployedVersion"]) == (200, first.json()["version"])
    assert operator.post(path, json=APP).status_code == 409
    assert operator.post(path, json={"appName": "x"}).json()["errors"][0]["path"] == "appId"
    secret = {"imageName": "redis:7", "config": {"environment": {"TOKEN": "s3cret"}}}
    assert operator.put(f"{path}/cache", json={"services": [secret]}).status_code == 200
    assert operator.put(f"{path}/7/services/2", json={"imageName": "sidecar:1"}).status_code == 200
    shown = operator.get(path).json()
    assert shown["count"] == 2
    assert [one["serviceId"] for one in shown["apps"]["7"]["services"]] == [1, 2]
    masked = operator.get(f"{path}/cache").json()
    assert masked["services"][0]["config"]["environment"] == {"TOKEN": "********"}
    assert operator.put(f"{path}/cache", json=masked).status_code == 200
    drafted = operator.delete(f"{path}/7/services/1", params={"draft": True}).json()
    assert drafted["needsDeployment"] is True
    assert operator.delete(f"{path}/7/services/9").status_code == 404
    assert operator.delete(f"{path}/7").status_code == 200
    assert (operator.get(f"{path}/7").status_code, operator.delete(f"{path}/7").status_code) == (404, 404)
    wrong = operator.put(f"{path}/8", json={"services": [{"serviceId": 1}]}).json()
    assert wrong["errors"][0]["path"] == "apps.8.services[0].imageName"
    stale = operator.put(f"{path}/9", json=APP | {"appId": 9}, headers={"if-match": first.headers["etag"]})
    assert stale.status_code == 412
    if of == "agents":
        environment = until(lambda: told(device)["apps"].get("cache"), what="the agent is told")["services"][0]
        assert environment["config"]["environment"] == {"TOKEN": "s3cret"}


def test_endpoints_are_added_changed_and_taken_away_by_name(operator: httpx.Client, device: Device) -> None:
    """They live in the agent's target; a uuid stays with a changed one, and a secret that is not written stays."""
    path = f"/agents/{device.uuid}/devices"
    checked = operator.post(path, json=ENDPOINT, params={"validateOnly": True}).json()
    assert checked["valid"] is True
    assert operator.get(path).json()["count"] == 0
    assert operator.post(path, json=ENDPOINT).status_code == 200
    assert operator.post(path, json=ENDPOINT).status_code == 409
    before = operator.get(f"{path}/plc").json()["endpoint"]
    assert before["connection"] == {"host": "10.0.0.9", "password": "********"}
    changed = {**before, "name": "plc-2", "pollInterval": 5000}
    assert operator.put(f"{path}/plc", json=changed).status_code == 200
    assert operator.patch(f"{path}/plc-2", json={"metadata": {"line": 3}, "pollInterval": None}).status_code == 200
    until(lambda: told(device)["config"].get("endpoints"), what="the agent is told")
    endpoint = until(lambda: (e := told(device)["config"]["endpoints"][0]).get("metadata") and e, what="told again")
    assert endpoint["uuid"] == before["uuid"]
    assert endpoint["connection"]["password"] == "hunter2"
    assert "pollInterval" not in endpoint
    bad = operator.put(f"{path}/plc-2", json={"protocol": "modbus", "pollInterval": 1})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (400, "pollInterval")
    assert operator.delete(f"{path}/plc-2").status_code == 200
    assert operator.delete(f"{path}/plc-2").status_code == 404


def test_an_endpoint_of_the_fleet_is_overridden_and_not_deleted(operator: httpx.Client, device: Device) -> None:
    """What an agent changes of it is its own; the rest follows the fleet."""
    fleet = operator.post("/fleets", json={"name": "line 2"}).json()["fleetUuid"]
    assert operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": fleet}).status_code == 200
    assert put(operator, fleet, {"config": {"endpoints": [ENDPOINT]}}).status_code == 200
    path = f"/agents/{device.uuid}/devices"
    assert operator.get(f"{path}/plc").json()["source"] == "fleet"
    assert "enabled" in operator.delete(f"{path}/plc").json()["error"]
    assert operator.patch(f"{path}/plc", json={"enabled": False}).status_code == 200
    (listed,) = operator.get(path).json()["devices"]
    assert (listed["source"], listed["endpoint"]["enabled"], listed["endpoint"]["connection"]["host"]) == (
        "both",
        False,
        "10.0.0.9",
    )
    report(device, endpoints_health={"plc": {"status": "disabled", "errorCount": 0}, "own": {"status": "online"}})
    path = f"/agents/{device.uuid}/device-health"
    health = until(lambda: len((h := operator.get(path).json())["devices"]) == 2 and h, what="both are known")
    assert health["summary"] == {
        "total": 2,
        "enabled": 0,
        "disabled": 1,
        "online": 1,
        "byProtocol": {"modbus": 1, "unknown": 1},
    }
    assert [one["enabled"] for one in health["devices"]] == [False, None]


def test_a_fleet_says_how_far_its_agents_are(server: Served, operator: httpx.Client) -> None:
    """Each in one stage; who reports the version is counted, and not listed."""
    key, fleet = key_for(operator), operator.post("/fleets", json={"name": "stages"}).json()["fleetUuid"]
    devices = [Device(server).join(key) for _ in range(4)]
    assert operator.post(f"/fleets/{fleet}/agents", json={"agents": [d.uuid for d in devices]}).status_code == 200
    assert put(operator, fleet, {"config": {"logging": {"level": "debug"}}}).status_code == 200
    until(lambda: told(devices[0])["config"], what="the target is told")
    versions = [told(device)["version"] for device in devices[:2]]
    for device, version in ((devices[0], versions[0]), (devices[1], 1), (devices[2], 1)):
        headers = {"X-Device-API-Key": device.api_key}
        body = {device.uuid: {"version": version, "is_online": True}}
        assert httpx.patch(f"{device.base}/device/state", headers=headers, json=body).status_code == 200
    path = f"/fleets/{fleet}/target-state/explain"
    wanted = {"reported": 1, "not_reported": 1, "polling_off": 1, "silent": 1}

    def seen() -> Any:
        answer = operator.get(path).json()
        return {k: v for k, v in answer["stages"].items() if v} == wanted and answer

    answer = until(seen, 40, "every agent is in its stage")
    assert {one["agentUuid"]: one["stage"] for one in answer["agents"]} == {
        devices[1].uuid: "not_reported",
        devices[2].uuid: "polling_off",
        devices[3].uuid: "silent",
    }
    (one,) = operator.get(path, params={"stage": "reported"}).json()["agents"]
    assert (one["agentUuid"], one["fetchedVersion"], answer["deployedVersion"]) == (devices[0].uuid, versions[0], 1)


def test_no_explanation_gives_a_secret_away(server: Served, operator: httpx.Client, device: Device) -> None:
    """What an agent says of its own errors may hold a log-in; who is locked out is said to be."""
    viewer = server.login("explain", "viewer")
    put(operator, device, {"config": {"endpoints": [ENDPOINT]}})
    assert poll(device).status_code == 200
    error = "connect opc.tcp://admin:hunter2@10.0.0.9 failed"
    report(device, endpoints_health={"plc": {"connected": False, "lastError": error}})
    path = f"/agents/{device.uuid}/target-state/explain"
    said = until(lambda: (a := viewer.get(path)).json()["errors"] and a, 30)
    assert said.json()["errors"] == [{"what": "endpoint plc", "error": "********"}]
    assert "hunter2" not in said.text
    assert operator.post(f"/agents/{device.uuid}/revoke").status_code == 200
    assert "revoked" in explain(operator, device, "locked_out")["reason"]


def test_agents_that_report_a_fault_are_counted_and_found(operator: httpx.Client, device: Device) -> None:
    """In the overview, on the map, in the list and on the timeline, until they report that it is over."""
    broken = {"plc": {"connected": False, "lastError": "refused"}, "meter": {"status": "online"}}

    def found(*, failing: bool) -> list[str]:
        page = operator.get("/agents", params={"failing": failing, "search": device.uuid}).json()
        return [agent["uuid"] for agent in page["agents"]]

    def kinds() -> list[tuple[str, Any]]:
        rows = operator.get(f"/agents/{device.uuid}/timeline", params={"kind": "state"}).json()["happenings"]
        return [(row["kind"], row["details"].get("what")) for row in rows if row["kind"] != "state.changed"]

    report(device, endpoints_health=broken)
    until(lambda: found(failing=True) == [device.uuid], 20, "it is found")
    assert found(failing=False) == []
    assert operator.get(f"/agents/{device.uuid}").json()["faults"] == 1
    every = operator.get("/agents", params={"failing": True, "filter": "active"}).json()["total"]
    until(lambda: operator.get("/overview").json()["agents"]["failing"] == every, 10, "it is counted")
    drawn = operator.get("/overview/map").json()
    assert drawn["faults"][drawn["uuid"].index(device.uuid)] == 1
    assert kinds() == [("state.failing", "endpoint plc")]
    report(device, endpoints_health={"plc": {"connected": True, "status": "online"}})
    until(lambda: found(failing=True) == [], 20, "it is over")
    assert sorted(kinds()) == [("state.failing", "endpoint plc"), ("state.recovered", "endpoint plc")]
