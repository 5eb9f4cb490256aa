"""The life of an identity, by API and by command line, and what the audit says of it."""

from uuid import uuid4

import httpx
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until


@pytest.fixture(scope="module")
def admin(server: Served) -> httpx.Client:
    server.add_tenant("identities")
    return server.login("identities", "admin")


@pytest.fixture
def device(server: Served, admin: httpx.Client) -> Device:
    """An agent that has registered and proved itself."""
    return Device(server).join(key_for(admin))


def actions(admin: httpx.Client, uuid: str) -> list[str]:
    """What the audit says of an agent, the oldest first."""
    events = admin.get("/audit/events", params={"subject": uuid}).json()["events"]
    return [event["action"] for event in reversed(events)]


def test_old_and_new_key_are_good_until_the_new_one_is_seen(admin: httpx.Client, device: Device) -> None:
    """A rotation strands nobody: an agent that never gets its new key goes on with the old one."""
    before = device.api_key
    made = admin.post(f"/device/{device.uuid}/rotate-key").json()
    assert device.get().status_code == 200
    device.api_key = made["apiKey"]
    assert device.get().status_code == 200
    device.api_key = before
    until(lambda: device.get().status_code == 401, 5, "the old key ends once the new one was used")
    device.connect().close()  # MQTT goes on with the password the agent has
    assert actions(admin, device.uuid)[-2:] == ["agent.key_rotated", "agent.key_adopted"]


def test_an_agent_rotates_its_own_key(admin: httpx.Client, device: Device) -> None:
    """With a key it has made itself; a grace of none ends the old one at once."""
    new = Device.__new__(Device)
    new.__dict__.update(device.__dict__, api_key="v2_00000000_" + uuid4().hex * 2)
    answer = httpx.post(
        f"{device.base}/device/{device.uuid}/rotate-key",
        headers={"X-Device-API-Key": device.api_key},
        json={"deviceApiKey": new.api_key, "graceHours": 0},
    )
    assert (answer.status_code, "apiKey" in answer.json()) == (200, False)
    until(lambda: device.get().status_code == 401, 5)
    assert new.get().status_code == 200


def test_a_second_rotation_ends_a_key_that_was_never_used(admin: httpx.Client, device: Device) -> None:
    """Of two keys nobody used the newer one counts; the one in use stays."""
    lost = admin.post(f"/device/{device.uuid}/rotate-key").json()["apiKey"]
    made = admin.post(f"/device/{device.uuid}/rotate-key").json()["apiKey"]
    assert device.get().status_code == 200
    device.api_key = lost
    assert device.get().status_code == 401
    device.api_key = made
    assert device.get().status_code == 200


@pytest.mark.parametrize("how", ["api", "command"])
def test_a_revoked_agent_is_out_within_two_seconds(
    server: Served, admin: httpx.Client, device: Device, how: str
) -> None:
    """HTTP and the live MQTT connection both end, and neither comes back."""
    with device.connect() as client:
        assert device.get().status_code == 200
        if how == "api":
            assert admin.post(f"/agents/{device.uuid}/revoke", json={"reason": "stolen"}).status_code == 200
        else:
            done = server.command("agents", "revoke", device.uuid, "--reason", "stolen")
            assert done.returncode == 0, done.stderr
        client._socket.settimeout(2)
        assert client._socket.recv(1) == b""  # closed by the broker; a timeout would raise
    until(lambda: device.get().status_code == 401, 2, "the key ends")
    assert not device.is_let_in()
    event = admin.get("/audit/events", params={"subject": device.uuid, "action": "agent.revoked"}).json()["events"][
        0
    ]
    assert (event["before"]["state"], event["after"]["reason"]) == ("active", "stolen")
    assert event["actorKind"] == ("user" if how == "api" else "command")


@pytest.mark.parametrize("how", ["api", "command"])
def test_a_reset_agent_keeps_its_history(server: Served, admin: httpx.Client, device: Device, how: str) -> None:
    """Enrolled again it has its uuid and its readings, and a new key and MQTT password."""
    with device.connect() as client:
        client.publish(f"{device.topic}/endpoints/x", b'{"readings":[{"metric":"m","value":1}]}')
    until(lambda: admin.get(f"/readings/{device.uuid}/latest").json()["count"] == 1)
    again = Device(server, device.uuid)
    key = key_for(admin)
    assert again.register(key).status_code == 409
    if how == "api":
        assert admin.post(f"/agents/{device.uuid}/re-enrol").status_code == 200
    else:
        assert server.command("agents", "re-enrol", device.uuid, "--hours", "1").returncode == 0
    assert again.register(key).status_code == 200
    assert again.exchange().status_code == 200
    assert again.answer["mqtt"]["password"] != device.answer["mqtt"]["password"]
    again.connect().close()
    assert not device.is_let_in()
    assert device.get().status_code == 401
    assert admin.get(f"/readings/{device.uuid}/latest").json()["count"] == 1
    assert Device(server, device.uuid).register(key).status_code == 409
    refused = "agent.registration_refused"
    told = ["agent.registered", "agent.proven"]
    assert actions(admin, device.uuid) == [*told, refused, "agent.re_enrolled", *told, refused]


@pytest.mark.parametrize("how", ["api", "command"])
def test_new_hardware_takes_an_agents_place(server: Served, admin: httpx.Client, device: Device, how: str) -> None:
    """It inherits name, fleet, tags and target; the old one is retired, names its successor and keeps its readings."""
    fleet = admin.post("/fleets", json={"name": f"fleet {uuid4()}"}).json()["fleetUuid"]
    admin.patch(f"/agents/{device.uuid}", json={"name": "pump house", "fleetUuid": fleet})
    admin.put(f"/agents/{device.uuid}/tags", json={"tags": {"site": "berlin"}})
    target = {
        "config": {"endpoints": [{"name": "plc", "protocol": "modbus", "connection": {"password": "hunter2"}}]}
    }
    assert admin.put(f"/agents/{device.uuid}/target-state", json=target).status_code == 200
    new = Device(server).join(key_for(admin))
    if how == "api":
        assert admin.post(f"/agents/{device.uuid}/replace", json={"by": new.uuid}).status_code == 200
    else:
        assert server.command("agents", "replace", device.uuid, new.uuid).returncode == 0
    shown, old = admin.get(f"/agents/{new.uuid}").json(), admin.get(f"/agents/{device.uuid}").json()
    assert (shown["name"], shown["fleetUuid"], shown["state"]) == ("pump house", fleet, "active")
    assert shown["tags"] == {"site": "berlin"}
    state = until(lambda: (a := new.get(f"/device/{new.uuid}/state").json()[new.uuid])["config"] and a)
    assert state["config"]["endpoints"][0]["connection"] == {"password": "hunter2"}
    assert (old["state"], old["replacedBy"]) == ("retired", new.uuid)
    until(lambda: device.get().status_code == 401, 3)
    assert admin.post(f"/agents/{device.uuid}/re-enrol").status_code == 409
    assert admin.post(f"/agents/{new.uuid}/replace", json={"by": device.uuid}).status_code == 409


@pytest.mark.parametrize("how", ["api", "command"])
def test_a_retired_agent_is_gone_for_good(server: Served, admin: httpx.Client, device: Device, how: str) -> None:
    """Nothing lets it in again; it is still listed, with what it sent."""
    if how == "api":
        assert admin.post(f"/agents/{device.uuid}/retire").status_code == 200
    else:
        assert server.command("agents", "retire", device.uuid).returncode == 0
    until(lambda: device.get().status_code == 401 and not device.is_let_in(), 3)
    assert device.register(key_for(admin)).status_code == 409
    assert admin.post(f"/device/{device.uuid}/rotate-key").status_code == 409
    assert admin.get(f"/agents/{device.uuid}").json()["state"] == "retired"


def test_an_agent_made_by_hand_gets_a_key_by_command(server: Served, admin: httpx.Client) -> None:
    """`agents rotate` prints a key that works at once."""
    made = server.add_agent("identities")
    done = server.command("agents", "rotate", made["uuid"])
    key = done.stdout.splitlines()[0].split()[-1]
    device = Device(server, made["uuid"])
    device.api_key = key
    assert device.get().json()["status"] == "active"


@pytest.mark.parametrize("command", ["revoke", "re-enrol", "retire", "rotate", "show"])
def test_an_unknown_agent_is_said_so(server: Served, command: str) -> None:
    """One line, and what to do."""
    done = server.command("agents", command, str(uuid4()))
    assert done.returncode == 1
    assert "iotistica agents list" in done.stderr
    assert len(done.stderr.splitlines()) == 1
