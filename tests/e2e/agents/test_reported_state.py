"""What agents say of themselves, from the wire to the operator who asks."""

import gzip
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests import captured
from tests.devices import Device, key_for
from tests.serving import Served, until

LIVELY = ("cpu_usage", "memory_usage", "uptime")


@pytest.fixture(scope="module")
def operator(server: Served) -> httpx.Client:
    server.add_tenant("states")
    return server.login("states", "owner")


@pytest.fixture
def device(server: Served, operator: httpx.Client) -> Device:
    return Device(server).join(key_for(operator))


def report(device: Device, body: Any, *, zipped: bool = False, encoding: str = "") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if zipped:
        content, encoding = gzip.compress(content), "gzip"
    headers = {"X-Device-API-Key": device.api_key, "content-type": "application/json"}
    if encoding:
        headers["content-encoding"] = encoding
    return httpx.patch(f"{device.base}/device/state", content=content, headers=headers, timeout=30)


def current(operator: httpx.Client, uuid: str) -> Any:
    answer = operator.get(f"/agents/{uuid}/current-state")
    return answer.json() if answer.status_code == 200 else None


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for one in reports:
        state |= one
    return state


@pytest.mark.parametrize(
    "files", [("first_boot_http", "first_boot_no_telemetry"), ("broker_outage_http", "broker_outage_replay")]
)
def test_the_traffic_of_the_public_agent_gives_its_current_state(server: Served, files: tuple[str, str]) -> None:
    """Reports by HTTP and by MQTT, in the order in which they were sent, and the answers the agent needs."""
    name = f"captures-{uuid4()}"
    server.add_tenant(name)
    operator = server.login(name, "owner")
    device = Device(server).join(key_for(operator))
    sent = sorted(
        [(packet["t"], packet) for packet in captured.packets(files[1]) if packet["topic"].endswith("/state")]
        + [(one["t"], one) for one in captured.packets(files[0]) if one["path"] == "/api/v1/device/state"],
        key=lambda pair: pair[0],
    )
    assert len(sent) > 4
    reports: list[dict[str, Any]] = []
    with device.connect() as client:
        for _, one in sent:
            (values,) = (
                one["req_body"] if "path" in one else json.loads(bytes.fromhex(one["payload_hex"]))
            ).values()
            reports.append(values)
            body = {device.uuid: values}
            if "path" in one:
                answer = report(device, body, zipped=dict(one["req_headers"]).get("Content-Encoding") == "gzip")
                assert (answer.status_code, answer.json()) == (one["status"], {"status": "ok"})
            else:
                client.publish(f"{device.topic}/state", json.dumps(body).encode())
            wanted = merged(reports)
            until(lambda: _shown(current(operator, device.uuid)) == wanted, what="the report is merged")  # noqa: B023
    ledger = operator.get("/ingestion/ledger").json()
    assert ledger["payloads"]["deadLettered"] == 0
    system = [values for values in reports if "cpu_usage" in values]

    def measured() -> Any:
        found = operator.get(f"/readings/{device.uuid}/latest").json()["readings"]
        by_name = {reading["metric_name"]: reading for reading in found}
        return by_name if by_name and by_name["cpu_usage"]["value"] == system[-1]["cpu_usage"] else None

    latest = until(measured, what="measured values are readings")
    assert {latest[name]["protocol"] for name in LIVELY} == {"system"}
    path = f"/agents/{device.uuid}"
    seen = until(lambda: (a := operator.get(path).json())["online"] and a, what="it is online")
    assert seen["agentVersion"] == "1.0.547"


def _shown(state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    own = {key: state[key] for key in ("apps", "config", "version") if state[key] is not None}
    return own | dict(state["systemInfo"])


def test_a_replay_never_clears_what_is_newer(operator: httpx.Client, device: Device) -> None:
    """What was queued comes without a version after what is fresh; an absent key stays."""
    fresh = {"apps": {"1": {"appName": "new"}}, "version": 2, "config": {"logging": {"level": "info"}}}
    assert report(device, {device.uuid: fresh}, zipped=True).status_code == 200
    until(lambda: current(operator, device.uuid))
    with device.connect() as client:
        old = {"apps": {}, "config": {}, "is_online": False, "cpu_usage": 99}
        client.publish(f"{device.topic}/state", json.dumps({device.uuid: old}).encode())
    state = until(lambda: (s := current(operator, device.uuid)) and "is_online" in s["systemInfo"] and s)
    assert (state["apps"], state["config"], state["version"]) == (fresh["apps"], fresh["config"], 2)
    assert operator.get(f"/readings/{device.uuid}/latest").json()["readings"] == []


def test_what_changed_is_on_the_timeline_and_no_secret_is(operator: httpx.Client, device: Device) -> None:
    """An operator sees when an endpoint failed; a password that the agent repeats is masked everywhere."""
    connection = json.dumps({"host": "plc", "password": "hunter2"})
    endpoint = {"id": str(uuid4()), "name": "plc", "connectionString": connection}
    health = {"plc": {"status": "online", "lastPoll": "1"}}
    first = {"apps": {}, "version": 1, "config": {"endpoints": [endpoint]}, "endpoints_health": health}
    assert report(device, {device.uuid: first}).status_code == 200
    health = {"plc": {"status": "offline", "lastPoll": "2", "lastError": "timeout"}}
    assert report(device, {device.uuid: {"version": 1, "endpoints_health": health}}).status_code == 200

    def told() -> Any:
        found = operator.get(f"/agents/{device.uuid}/timeline", params={"kind": "state.changed"})
        return found if "lastError" in found.text else None

    answer = until(told)
    page = operator.get(f"/agents/{device.uuid}/timeline", params={"limit": 1}).json()
    assert page["count"] == 1
    shown = operator.get(f"/agents/{device.uuid}/current-state")
    assert "hunter2" not in answer.text + shown.text
    echoed = json.loads(shown.json()["config"]["endpoints"][0]["connectionString"])
    assert echoed == {"host": "plc", "password": "********"}
    assert operator.get(f"/agents/{device.uuid}/timeline", params={"cursor": "nonsense"}).status_code == 400
    assert operator.get(f"/agents/{uuid4()}/timeline").status_code == 404


def test_a_report_that_is_none_is_refused_with_its_reason(operator: httpx.Client, device: Device) -> None:
    """Too large, another agent's, no object, not what its encoding says: nothing changes."""
    other = str(uuid4())
    large = {device.uuid: {"apps": "x" * (10 << 20), "version": 1}}
    for body, status, reason, zipped in (
        (large, 413, "", False),
        (large, 413, "", True),
        ({other: {"apps": {}, "version": 1}}, 400, other, False),
        ({device.uuid: 7}, 400, "unknown_shape", False),
        (b"{", 400, "bad_json", False),
    ):
        answer = report(device, body, zipped=zipped)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert reason in answer.json()["error"]
    cut = gzip.compress(json.dumps({device.uuid: {"apps": {}, "version": 1}}).encode())
    for content in (cut[:-9], cut + b"more", b"no gzip at all"):
        answer = report(device, content, encoding="gzip")
        assert answer.status_code == 400
        assert "compressed" in answer.text or "encoding" in answer.text
    assert report(device, cut, encoding="br").status_code == 415
    assert operator.get(f"/agents/{device.uuid}/current-state").status_code == 404
    with device.connect() as client:
        client.publish(f"{device.topic}/state", json.dumps({other: {"apps": {}, "version": 1}}).encode())
    letters = until(lambda: operator.get("/ingestion/dead-letters").json()["deadLetters"])
    assert letters[0]["reason"] == "foreign_agent"


def test_interfaces_and_devices_are_listed(operator: httpx.Client, device: Device) -> None:
    """As the agent reports them."""
    nets, found = [{"name": "eth0", "ip4": "10.0.0.2"}], [{"uuid": str(uuid4()), "name": "pump"}]
    assert (
        report(device, {device.uuid: {"version": 1, "network_interfaces": nets, "devices": found}}).status_code
        == 200
    )
    until(lambda: current(operator, device.uuid))
    assert operator.get(f"/agents/{device.uuid}/network-interfaces").json()["interfaces"] == nets
    assert operator.get(f"/agents/{device.uuid}/reported-devices").json()["devices"] == found
