"""How agents get in, and what they may not take with them."""

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.captured import FOLDER
from tests.devices import Device, key_for
from tests.serving import Served, served, until


@pytest.fixture(scope="module")
def admin(server: Served) -> httpx.Client:
    server.add_tenant("provisioned")
    return server.login("provisioned", "admin")


def exchanges(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["provision_503_then_ok", "first_boot_http"])
def test_the_captured_agent_registers(name: str) -> None:
    """Header for header and body for body; only keys, which nobody has any more, and the signature are new."""
    with served() as server:  # of its own: other tests have an agent with the captured uuid
        _play(server, server.login(), name)


def _play(server: Served, admin: httpx.Client, name: str) -> None:
    key = key_for(admin)
    recorded = [e for e in exchanges(name) if "register" in e["path"] or "key-exchange" in e["path"]]
    device = Device(server, recorded[0]["req_body"]["uuid"])
    device.api_key = recorded[0]["req_body"]["deviceApiKey"]
    answer: dict[str, Any] = {}
    for exchange in recorded:
        body = exchange["req_body"]
        if "devicePublicKey" in body:
            body = body | {"devicePublicKey": device.public_key}
        else:
            body = body | {"signature": device.sign(answer["challenge"])}
        skipped = ("host", "content-length")
        headers = [
            (n, key if n == "x-provisioning-key" else v) for n, v in exchange["req_headers"] if n not in skipped
        ]
        got = httpx.request(
            exchange["method"],
            f"http://127.0.0.1:{server.http_port}{exchange['path']}",
            headers=headers,
            content=json.dumps(body, separators=(",", ":")),
        )
        assert got.status_code == 200, got.text
        answer = got.json() | answer
    agent_accepts(answer)
    config = answer["mqtt"]["brokerConfig"]
    device.answer = answer
    with device.connect() as client:
        client.publish(f"{device.topic}/endpoints/modbus", b'{"readings":[{"metric":"m","value":1}]}')
    assert config["port"] == server.mqtt_port
    until(lambda: admin.get(f"/readings/{device.uuid}/latest").json()["count"] == 1, what="the reading")


def agent_accepts(answer: dict[str, Any]) -> None:
    """What the agent reads of a registration's answer; without any of these it fails or never connects."""
    assert isinstance(answer["tenantId"], str)
    assert len(bytes.fromhex(answer["tenantId"])) == 6
    assert isinstance(answer["challenge"], str)
    assert answer["challenge"]
    config = answer["mqtt"]["brokerConfig"]
    assert config["protocol"] in ("mqtt", "mqtts", "ws", "wss")
    assert all(isinstance(config[name], str) and config[name] for name in ("host", "username", "password"))
    assert isinstance(config["port"], int)
    assert "vpn" not in answer  # it would install one
    assert answer["status"] == "ok"
    assert answer["device"]["uuid"] == answer["uuid"]


def test_an_agent_connects_with_the_answer_in_its_hands(server: Served, admin: httpx.Client) -> None:
    """The broker has the account before the proof is answered: the public agent's first connection counts."""
    key = key_for(admin)
    for _ in range(5):
        device = Device(server).join(key)
        assert device.is_let_in()


@pytest.mark.parametrize("curve", ["ed25519", "p256"])
def test_the_same_call_again_is_answered_alike(server: Served, admin: httpx.Client, curve: str) -> None:
    """A lost answer costs nothing: the key is used once, each challenge is new, and each may be answered."""
    key = key_for(admin, maxDevices=1)
    device = Device(server, curve=curve)
    first = device.register(key).json()
    second = device.register(key).json()
    assert first["challenge"] != second["challenge"]
    assert first["mqtt"] == second["mqtt"]
    assert device.exchange(signature=b64encode(bytes(64)).decode()).status_code == 401
    assert device.exchange(first["challenge"]).status_code == 200
    assert device.exchange(second["challenge"]).status_code == 200
    assert device.register(key).json()["mqtt"] == first["mqtt"]
    used = [k["used"] for k in admin.get("/provision/keys").json()["keys"] if k["hint"] == key[: len(k["hint"])]]
    assert used == [1]


def test_the_broker_lets_nobody_in_before_the_proof(server: Served, admin: httpx.Client) -> None:
    """A registration alone opens nothing, and its key may do nothing but prove itself."""
    device = Device(server)
    device.register(key_for(admin))
    assert not device.is_let_in()
    assert device.get().status_code == 403
    challenge = httpx.post(f"{device.base}/device/{device.uuid}/challenge", headers={"X-Agent-Key": device.api_key})
    assert device.exchange(challenge.json()["challenge"]).status_code == 200
    device.connect().close()
    assert until(lambda: device.get().status_code == 200, 5)


def test_a_key_for_ten_gives_exactly_ten_agents(server: Served, admin: httpx.Client) -> None:
    """Fifty at once, and each of the ten can repeat its call afterwards."""
    key = key_for(admin, maxDevices=10)
    before = admin.get("/agents?limit=1000").json()["count"]
    devices = [Device(server) for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda device: device.register(key).status_code, devices))
    assert statuses.count(200) == 10
    assert set(statuses) == {200, 401}
    assert admin.get("/agents?limit=1000").json()["count"] == before + 10
    taken = [device for device, status in zip(devices, statuses, strict=True) if status == 200]
    assert all(device.register(key).status_code == 200 for device in taken)
    assert all(device.exchange().status_code == 200 for device in taken)


def test_ten_calls_of_one_agent_at_once_are_one(server: Served, admin: httpx.Client) -> None:
    """However they overlap, one use is taken and all of them are answered."""
    key, device = key_for(admin, maxDevices=1), Device(server)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: device.register(key).status_code, range(10)))
    assert statuses == [200] * 10
    assert device.exchange().status_code == 200


def test_a_stolen_key_takes_nobody_over(server: Served, admin: httpx.Client) -> None:
    """Not an agent of the tenant, nor one made by hand, nor another tenant's; each attempt is in the audit."""
    key = key_for(admin)
    victim = Device(server).join(key)
    by_hand = server.add_agent("provisioned")
    server.add_tenant("elsewhere")
    elsewhere = server.login("elsewhere", "admin")
    foreign = Device(server).join(key_for(elsewhere))
    for uuid in (victim.uuid, by_hand["uuid"], foreign.uuid):
        thief = Device(server, uuid)
        answer = thief.register(key)
        assert (answer.status_code, "mqtt" in answer.json()) == (409, False)
        events = admin.get("/audit/events", params={"subject": uuid, "action": "agent.registration_refused"}).json()
        assert events["count"] == 1
    # An API key alone, or the public key alone, is not enough either.
    thief = Device(server, victim.uuid)
    thief.api_key = victim.api_key
    assert thief.register(key).status_code == 409
    thief = Device(server, victim.uuid)
    thief.public_key = victim.public_key
    assert thief.register(key).status_code == 409
    assert victim.get().status_code == 200
    seen = elsewhere.get("/audit/events", params={"subject": foreign.uuid, "action": "agent.registration_refused"})
    assert seen.json()["count"] == 1
    (event,) = seen.json()["events"]
    assert "provisioning_key" not in event["after"]
    assert (event["actorKind"], event["actorName"]) == (
        "anybody",
        None,
    )  # what a stranger writes is not shown there


@pytest.mark.parametrize("change", ["unknown", "revoked", "none"])
def test_a_bad_provisioning_key_is_refused(server: Served, admin: httpx.Client, change: str) -> None:
    """Unknown, revoked or missing: alike."""
    key = key_for(admin)
    if change == "revoked":
        (found,) = [k for k in admin.get("/provisioning-keys").json()["keys"] if key.startswith(k["hint"])]
        assert admin.delete(f"/provisioning-keys/{found['id']}").status_code == 204
    answer = Device(server).register({"unknown": "prov_x", "revoked": key, "none": ""}[change])
    assert answer.status_code == 401
    assert "key" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"devicePublicKey": "nonsense"}, "devicePublicKey"),
        ({"deviceApiKey": "short"}, "deviceApiKey"),
        ({"deviceApiKey": "x" * 300}, "deviceApiKey"),
        ({"deviceApiKey": " " * 40}, "deviceApiKey"),
        ({"deviceApiKey": "a.b." + "c" * 40}, "deviceApiKey"),
        ({"deviceApiKey": "iotak_" + "c" * 40}, "deviceApiKey"),
        ({"uuid": "nobody"}, "uuid"),
        ({"deviceName": "n" * 3000}, "deviceName"),
        ({"deviceName": 7}, "deviceName"),
    ],
)
def test_bad_input_names_its_field(server: Served, admin: httpx.Client, changed: dict[str, Any], path: str) -> None:
    """And uses nothing up."""
    answer = Device(server).register("prov_any", **changed)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path


def test_what_a_device_writes_of_itself_is_only_text(server: Served, admin: httpx.Client) -> None:
    """Control characters, which a terminal would obey, are left out."""
    device = Device(server)
    device.register(key_for(admin), deviceName="\x1b[31mred\u202e\0 pump", osVersion="a\nb")
    shown = admin.get(f"/agents/{device.uuid}").json()
    assert (shown["name"], shown["osVersion"]) == ("[31mred pump", "ab")


def test_an_agent_gets_a_key_made_in_the_cloud(server: Served, admin: httpx.Client) -> None:
    """One call for devices that cannot sign; the key is shown once and counts as a use."""
    key = key_for(admin, maxDevices=1)
    base = f"http://127.0.0.1:{server.http_port}/api/v1"
    answer = httpx.post(f"{base}/provision/agent", json={"key": key, "agentName": "simple"})
    assert answer.status_code == 201
    made = answer.json()
    assert made["apiKey"].startswith("iotsk_live_")
    device = Device(server, made["agentUuid"])
    device.api_key, device.answer = made["apiKey"], made
    assert device.get().json()["name"] == "simple"
    device.connect().close()
    assert httpx.post(f"{base}/provision/agent", json={"key": key}).status_code == 401


def test_a_fleet_comes_with_the_key(server: Served, admin: httpx.Client) -> None:
    """An agent joins the fleet of its key; a key cannot be of another tenant's fleet."""
    fleet = admin.post("/fleets", json={"name": f"fleet {uuid4()}"}).json()["fleetUuid"]
    device = Device(server)
    assert device.register(key_for(admin, fleetUuid=fleet)).json()["fleetUuid"] == fleet
    server.add_tenant("fleetless")
    stranger = server.login("fleetless", "admin")
    foreign, unknown = (
        stranger.post("/provision/keys", json={"fleetUuid": uuid}) for uuid in (fleet, str(uuid4()))
    )
    assert (foreign.status_code, foreign.content) == (400, unknown.content)
