"""What agents are to be: written, deployed, asked for by the agents themselves."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
import psycopg
import pytest

from tests import captured
from tests.devices import Device, key_for
from tests.serving import Served, until

CONNECTION = {"host": "10.0.0.9", "password": "hunter2"}
ENDPOINT = {"name": "plc", "protocol": "modbus", "connection": CONNECTION}
TARGET: dict[str, Any] = {
    "apps": {
        "7": {"appName": "web", "services": [{"imageName": "nginx:1.27", "config": {"environment": {"A": "b"}}}]}
    },
    "config": {"logging": {"level": "info"}, "endpoints": [ENDPOINT]},
}


@pytest.fixture(scope="module")
def operator(server: Served) -> httpx.Client:
    server.add_tenant("targets")
    return server.login("targets", "owner")


@pytest.fixture
def device(server: Served, operator: httpx.Client) -> Device:
    return Device(server).join(key_for(operator))


def poll(device: Device, tag: str | None = None) -> httpx.Response:
    headers = {"X-Device-API-Key": device.api_key} | ({"if-none-match": tag} if tag else {})
    return httpx.get(f"{device.base}/device/{device.uuid}/state", headers=headers, timeout=30)


def told(device: Device) -> Any:
    answer = poll(device)
    assert answer.status_code == 200, answer.text
    return answer.json()[device.uuid]


def put(operator: httpx.Client, of: Device | str, target: Any, **headers: str) -> httpx.Response:
    path = f"/agents/{of.uuid}" if isinstance(of, Device) else f"/fleets/{of}"
    return operator.put(f"{path}/target-state", json=target, headers=headers)


def test_an_agent_is_told_its_target_once_and_then_that_nothing_changed(
    operator: httpx.Client, device: Device
) -> None:
    """The answer is under its uuid, with a strong tag in quotes; every form of If-None-Match is understood."""
    first = poll(device)
    assert first.json()[device.uuid] | {"version": 1} == {
        "apps": {},
        "config": {},
        "version": 1,
        "needs_deployment": False,
        "last_deployed_at": None,
    }
    assert first.headers["etag"].startswith('"')
    assert put(operator, device, TARGET).status_code == 200
    document = until(lambda: (d := told(device))["apps"] and d, what="the agent is told")
    assert document["config"]["endpoints"][0]["connection"] == CONNECTION
    assert document["apps"]["7"]["services"][0]["config"]["environment"] == {"A": "b"}
    answer = poll(device)
    tag = answer.headers["etag"]
    assert tag != first.headers["etag"]
    for form in (tag, f"W/{tag}", tag.strip('"'), f'"other", {tag}', "*"):
        again = poll(device, form)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert poll(device, first.headers["etag"]).status_code == 200
    shown = operator.get(f"/agents/{device.uuid}/target-state").json()
    assert shown["version"] == document["version"] == shown["deployedVersion"]


def test_the_polls_of_the_public_agent_get_the_answers_that_it_got(operator: httpx.Client, device: Device) -> None:
    """200 with a body the first time of each process, then 304 for the tag that it was given."""
    recorded = [one for one in captured.packets("first_boot_http") if one["path"].endswith("/state")]
    recorded = [one for one in recorded if one["method"] == "GET"]
    (document,) = recorded[0]["resp_body"].values()
    wanted = {"apps": document["apps"], "config": document["config"]}
    answer = put(operator, device, wanted)
    assert answer.status_code == 200, answer.text
    until(lambda: told(device)["config"], what="the agent is told")
    tag = None
    for one in recorded:
        headers = dict(one["req_headers"]) | {"X-Device-API-Key": device.api_key}
        headers = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection", "if-none-match")}
        headers |= {"if-none-match": tag} if tag else {}
        got = httpx.get(f"{device.base}/device/{device.uuid}/state", headers=headers)
        assert got.status_code == one["status"]
        tag = got.headers["etag"]
        if got.status_code == 200:
            mine = got.json()[device.uuid]
            assert mine["config"] | {"endpoints": 0} == document["config"] | {"endpoints": 0}
            for endpoint, recorded_one in zip(
                mine["config"]["endpoints"], document["config"]["endpoints"], strict=True
            ):
                assert recorded_one.items() <= endpoint.items()


def test_two_who_write_at_once_do_not_overwrite_each_other(operator: httpx.Client, device: Device) -> None:
    """One wins; the other is told who did, and what is different now."""
    seen = put(operator, device, TARGET).headers["etag"]
    levels = ("debug", "warn", "error", "debug")

    def write(level: str) -> httpx.Response:
        with httpx.Client(base_url=operator.base_url, headers=operator.headers) as own:
            return put(own, device, TARGET | {"config": {"logging": {"level": level}}}, **{"if-match": seen})

    with ThreadPoolExecutor(len(levels)) as pool:
        answers = list(pool.map(write, levels))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    lost = next(answer for answer in answers if answer.status_code == 412).json()
    assert lost["current"]["author"]["name"] == "owner-targets@example.com"
    changed = {one["path"] for one in lost["current"]["changes"]}
    assert "config.logging.level" in changed
    assert "hunter2" not in json.dumps(lost)


def test_a_draft_changes_nothing_until_it_is_deployed(operator: httpx.Client, device: Device) -> None:
    """And what was there before can be brought back; versions are never changed."""
    put(operator, device, TARGET)
    version = until(lambda: told(device)["version"] > 1 and told(device)["version"])
    tag = poll(device).headers["etag"]
    draft = {"apps": {}, "config": {"logging": {"level": "debug"}}, "note": "louder"}
    path = f"/agents/{device.uuid}/target-state"
    answer = operator.put(path, json=draft, params={"draft": True}).json()
    assert (answer["needsDeployment"], answer["deployedVersion"]) == (True, version)
    assert poll(device, tag).status_code == 304
    assert operator.post(f"{path}/deploy").json()["needsDeployment"] is False
    until(lambda: told(device)["config"] == draft["config"], what="the draft is deployed")
    back = operator.post(f"{path}/rollback", json={"version": version, "note": "too loud"}).json()
    until(lambda: "7" in told(device)["apps"], what="the earlier one is back")
    assert told(device)["version"] == back["version"]
    history = operator.get(f"{path}/history").json()["versions"]
    assert [(one["note"], one["restores"], one["deployed"]) for one in history] == [
        ("too loud", version, True),
        ("louder", None, False),
        (None, None, False),
    ]
    assert {one["path"] for one in history[1]["changes"]} == {"apps.7", "config.logging.level", "config.endpoints"}
    between = operator.get(f"{path}/compare", params={"from": version, "to": back["version"]}).json()
    assert between["changes"] == []
    assert operator.delete(path).json()["apps"] == {}


def test_a_secret_is_written_and_never_read(server: Served, operator: httpx.Client, device: Device) -> None:
    """Masked in every answer, sealed in the database, and kept when the mask is written back."""
    put(operator, device, TARGET)
    path = f"/agents/{device.uuid}/target-state"
    shown = operator.get(path).json()
    assert shown["config"]["endpoints"][0]["connection"]["password"] == "********"
    shown["config"]["endpoints"][0]["connection"]["host"] = "10.0.0.10"
    assert put(operator, device, {"apps": shown["apps"], "config": shown["config"]}).status_code == 200
    until(lambda: told(device)["config"]["endpoints"][0]["connection"]["host"] == "10.0.0.10")
    assert told(device)["config"]["endpoints"][0]["connection"]["password"] == "hunter2"
    told_elsewhere = operator.get(f"{path}/history").text + operator.get("/audit/events").text
    assert "hunter2" not in told_elsewhere
    new = {
        "apps": {},
        "config": {"endpoints": [ENDPOINT | {"name": "new", "connection": {"password": "********"}}]},
    }
    refused = put(operator, device, new)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (
        400,
        f"config.endpoints[{uuid5(NAMESPACE_URL, 'endpoint:new')}].connection.password",
    )


def test_an_agent_inherits_from_its_fleet_and_has_its_own_on_top(operator: httpx.Client, device: Device) -> None:
    """A fleet's deployment, a move into it and out of it change what the agent is told, each with a higher number."""
    fleet = operator.post("/fleets", json={"name": f"fleet {uuid4()}"}).json()["fleetUuid"]
    put(operator, fleet, {"apps": {}, "config": {"logging": {"level": "warn"}, "endpoints": [ENDPOINT]}})
    put(operator, device, {"apps": {}, "config": {"features": {"enableDeviceJobs": True}}})
    alone = until(lambda: (d := told(device))["config"] and d)
    assert operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": fleet}).status_code == 200
    joined = until(lambda: (d := told(device))["version"] > alone["version"] and d)
    assert joined["config"]["logging"] == {"level": "warn"}
    assert joined["config"]["features"] == {"enableDeviceJobs": True}
    own = ENDPOINT | {"enabled": False, "connection": {"host": "10.9.9.9"}}
    put(operator, device, {"apps": {}, "config": {"endpoints": [own], "logging": None}})
    mixed = until(lambda: (d := told(device))["version"] > joined["version"] and d)
    (endpoint,) = mixed["config"]["endpoints"]
    assert endpoint["connection"] == {"host": "10.9.9.9", "password": "hunter2"}
    assert (endpoint["enabled"], "logging" in mixed["config"]) == (False, False)
    put(operator, fleet, {"apps": {}, "config": {"runtime": {"memory": {"thresholdMb": 50}}}})
    later = until(lambda: (d := told(device))["version"] > mixed["version"] and d)
    assert later["config"]["runtime"] == {"memory": {"thresholdMb": 50}}
    operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": None})
    out = until(lambda: (d := told(device))["version"] > later["version"] and d)
    assert "runtime" not in out["config"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ({"apps": {"a b": {}}}, "apps.a b"),
        ({"apps": {"1": []}}, "apps.1"),
        ({"apps": {"1": {"services": [{}]}}}, "apps.1.services[0].imageName"),
        (
            {"apps": {"1": {"services": [{"imageName": "x", "config": {"ports": [80]}}]}}},
            "apps.1.services[0].config.ports",
        ),
        ({"apps": [{"appId": 1}, {"appId": "1"}]}, "apps"),
        ({"config": {"endpoints": {}}}, "config.endpoints"),
        ({"config": {"endpoints": [{"name": "x"}]}}, "config.endpoints[0].protocol"),
        ({"config": {"endpoints": [ENDPOINT, ENDPOINT]}}, "config.endpoints[1].name"),
        ({"config": {"endpoints": [ENDPOINT | {"uuid": "x"}]}}, "config.endpoints[0].uuid"),
        ({"config": {"endpoints": [ENDPOINT | {"pollInterval": "1s"}]}}, "config.endpoints[0].pollInterval"),
        ({"config": {"logging": {"level": "loud"}}}, "config.logging.level"),
        ({"config": {"intervals": {"agent": {"reportIntervalMs": 0}}}}, "config.intervals.agent.reportIntervalMs"),
        ({"config": {"features": {"enableDeviceJobs": "yes"}}}, "config.features.enableDeviceJobs"),
    ],
)
def test_a_target_with_a_fault_is_refused_by_its_path(
    operator: httpx.Client, device: Device, target: Any, path: str
) -> None:
    """And nothing is written."""
    answer = put(operator, device, target)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path)
    assert operator.get(f"/agents/{device.uuid}/target-state").json()["version"] == 0


def test_who_may_not_write_or_see_cannot(server: Served, operator: httpx.Client, device: Device) -> None:
    """A viewer reads; another tenant's operator finds nothing, and another agent's key opens nothing."""
    viewer, path = server.login("targets", "viewer"), f"/agents/{device.uuid}/target-state"
    assert viewer.get(path).status_code == 200
    assert viewer.put(path, json=TARGET).status_code == 403
    server.add_tenant("others")
    other = server.login("others", "owner")
    assert [other.get(path).status_code, other.put(path, json=TARGET).status_code] == [404, 404]
    assert other.put(f"/fleets/{uuid4()}/target-state", json=TARGET).status_code == 404
    stranger = Device(server).join(key_for(operator))
    headers = {"X-Device-API-Key": stranger.api_key}
    assert httpx.get(f"{device.base}/device/{device.uuid}/state", headers=headers).status_code == 404
    assert operator.post(f"/agents/{device.uuid}/revoke", json={}).status_code in (200, 201, 204)
    until(lambda: poll(device).status_code == 401, 2, what="a revoked key opens nothing")


def test_what_is_misspelt_or_empty_takes_nothing_away(operator: httpx.Client, device: Device) -> None:
    """A target that says nothing is refused, and an If-Match that names no version matches none."""
    assert put(operator, device, TARGET).status_code == 200
    for wrong, path in (({}, "config"), ({"confg": {}}, "confg"), ({"note": "x"}, "config")):
        answer = put(operator, device, wrong)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path), answer.text
    for tag, status in (
        ("abc", 412),
        ('"something else"', 412),
        ('"' + "9" * 5000 + '"', 412),
        ('"00000001"', 412),
        ('"999999999"', 412),
    ):
        assert put(operator, device, TARGET, **{"If-Match": tag}).status_code == status
    assert told(device)["config"]["endpoints"][0]["name"] == "plc"
    assert put(operator, device, {"config": {}}).json()["apps"] == {}


def test_who_changes_one_thing_deploys_no_draft_of_another(operator: httpx.Client, device: Device) -> None:
    """What is not a draft is made of what is deployed; a draft goes on from the newest."""
    put(operator, device, TARGET)
    path = f"/agents/{device.uuid}"
    draft = {"config": {"logging": {"level": "debug"}}}
    assert operator.put(f"{path}/target-state", params={"draft": True}, json=draft).json()["needsDeployment"]
    assert operator.get(f"{path}/devices").json()["count"] == 1
    assert operator.get(f"{path}/devices", params={"draft": True}).json()["count"] == 0
    changed = operator.patch(f"{path}/devices/plc", json={"pollInterval": 500}).json()
    assert (changed["config"]["logging"]["level"], changed["needsDeployment"]) == ("info", False)
    until(lambda: told(device)["config"]["endpoints"][0]["pollInterval"] == 500)
    assert told(device)["config"]["logging"]["level"] == "info"


def test_what_is_shown_can_be_written_back_whatever_is_deployed(operator: httpx.Client, device: Device) -> None:
    """The masks of a draft are the draft's; an agent that overrides nothing has no overrides."""
    put(operator, device, TARGET)
    path = f"/agents/{device.uuid}/target-state"
    other = {"config": {"endpoints": [ENDPOINT | {"connection": {"host": "h", "password": "of the draft"}}]}}
    assert operator.put(path, params={"draft": True}, json=other).status_code == 200
    shown = operator.get(path).json()
    assert put(operator, device, {"apps": shown["apps"], "config": shown["config"]}).status_code == 200
    until(lambda: told(device)["config"]["endpoints"][0]["connection"] == {"host": "h", "password": "of the draft"})
    fleet = operator.post("/fleets", json={"name": f"shown {device.uuid}"}).json()["fleetUuid"]
    assert operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": fleet}).status_code == 200
    assert operator.delete(path).status_code == 200
    put(operator, fleet, TARGET)
    assert operator.get(f"{path}/explain").json()["wanted"]["overrides"] == []


def test_a_list_of_endpoints_elsewhere_silences_nobody(operator: httpx.Client, device: Device) -> None:
    """An agent's own and its fleet's are joined whatever they hold: its poll is answered."""
    fleet = operator.post("/fleets", json={"name": f"elsewhere {device.uuid}"}).json()["fleetUuid"]
    assert operator.patch(f"/agents/{device.uuid}", json={"fleetUuid": fleet}).status_code == 200
    for whose, value in ((fleet, "a"), (device, "b")):
        target = {"config": {"protocols": {"mqtt": {"endpoints": [value]}}}}
        assert put(operator, whose, target).status_code == 200
    until(lambda: told(device)["config"] == {"protocols": {"mqtt": {"endpoints": ["b"]}}})
    assert operator.get(f"/agents/{device.uuid}/target-state/explain").status_code == 200
    rows = operator.get(f"/agents/{device.uuid}/timeline", params={"kind": "target"}).json()["happenings"]
    deployed = [row["details"].get("fleet") for row in rows if row["kind"] == "target.deployed"]
    assert deployed == [None, fleet], "both deployments are on its timeline"


def test_a_fleet_deploys_to_who_comes_into_it_meanwhile(
    server: Served, operator: httpx.Client, device: Device
) -> None:
    """A move that is not committed yet is waited for, and no agent is left with what the fleet said before."""
    fleet = operator.post("/fleets", json={"name": f"meanwhile {device.uuid}"}).json()["fleetUuid"]
    put(operator, fleet, {"config": {"logging": {"level": "info"}}})
    with ThreadPoolExecutor() as pool, psycopg.connect(server.runtime().database_url) as mover:
        mover.execute("UPDATE agents SET fleet_uuid = %s WHERE agent_uuid = %s", [fleet, device.uuid])
        deploying = pool.submit(put, operator, fleet, {"config": {"logging": {"level": "debug"}}})
        time.sleep(0.5)
        assert not deploying.done()
        mover.commit()
        assert deploying.result(30).status_code == 200
    until(lambda: told(device)["config"] == {"logging": {"level": "debug"}})
