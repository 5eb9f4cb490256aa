"""The broker's accounts: a tenant's own users, the broker in a process of its own, and brokers that ask by HTTP."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from iotistica.domain.agents.broker_passwords import service_password
from iotistica.embedded import data_folder
from tests.conftest import Stack
from tests.devices import Device, key_for
from tests.mqtt311 import Client311, RefusedError
from tests.serving import Served, free_port, new_data_folder, served, until

SECRET = "the-secret-of-a-broker"


@pytest.fixture(scope="module")
def asked() -> Iterator[Served]:
    """An instance that other brokers may ask."""
    with served(IOTISTICA_BROKER_SECRET=SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def admin(asked: Served) -> httpx.Client:
    return asked.login()


def connected(server: Served, user: dict[str, Any]) -> Client311 | None:
    with contextlib.suppress(RefusedError, ConnectionError):
        return Client311(server.mqtt_port, user["username"], user["password"])
    return None


def is_let_in(server: Served, user: dict[str, Any]) -> bool:
    client = connected(server, user)
    if client is not None:
        client.close()
    return client is not None


def made(admin: httpx.Client, **wanted: Any) -> dict[str, Any]:
    answer = admin.post("/mqtt-users", json={"name": f"u{uuid4().hex[:8]}", **wanted})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_tenants_user_reads_its_tenant_and_writes_nothing(asked: Served, admin: httpx.Client) -> None:
    """Unless it is said otherwise; and of other tenants nothing at all."""
    device = Device(asked).join(key_for(admin))
    asked.add_tenant("another")
    foreign = Device(asked).join(key_for(asked.login("another", "admin")))
    user = made(admin)
    with until(lambda: connected(asked, user), 10) as reader, device.connect() as own, foreign.connect() as other:
        reader.subscribe("#", "i/#")
        other.publish(f"{foreign.topic}/endpoints/x", b"foreign")
        with contextlib.suppress(ConnectionError):
            reader.publish(f"{device.topic}/agent/update", b"written", qos=0)
        own.subscribe(f"{device.topic}/agent/update")
        own.publish(f"{device.topic}/agent/update", b"end", qos=0)
        assert own.payloads(b"end") == [b"end"]
    with until(lambda: connected(asked, user), 10) as reader, device.connect() as own, foreign.connect() as other:
        reader.subscribe("#")
        other.publish(f"{foreign.topic}/endpoints/x", b"foreign")
        own.publish(f"{device.topic}/endpoints/x", b"end")
        assert reader.payloads(b"end") == [b"end"]


def test_rules_narrow_a_user_and_a_change_holds_at_once(asked: Served, admin: httpx.Client) -> None:
    """Rules, a lock and another password reach the broker while the user is connected."""
    device = Device(asked).join(key_for(admin))
    rules = [{"topic": "a/+/agent/update", "access": "write"}]
    user = made(admin, rules=rules)
    with until(lambda: connected(asked, user), 10) as writer, device.connect() as own:
        own.subscribe(f"{device.topic}/agent/update")
        writer.publish(f"{device.topic}/agent/update", b"end")
        assert own.payloads(b"end") == [b"end"]
        path = f"/mqtt-users/{user['name']}"
        assert admin.patch(path, json={"enabled": False}).json()["enabled"] is False
        writer._socket.settimeout(3)
        assert writer._socket.recv(1) == b""
    assert not is_let_in(asked, user)
    renewed = admin.put(path, json={"enabled": True, "newPassword": True}).json()
    until(lambda: is_let_in(asked, renewed), 10)
    assert not is_let_in(asked, user)
    assert admin.get(path).json()["rules"] == rules
    assert admin.delete(path).status_code == 204
    until(lambda: not is_let_in(asked, renewed), 5)
    actions = [e["action"] for e in admin.get("/audit/events", params={"subject": user["name"]}).json()["events"]]
    assert actions == ["mqtt_user.deleted", "mqtt_user.changed", "mqtt_user.changed", "mqtt_user.added"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "x\ntopic readwrite #"}, "name"),
        ({"name": "n" * 33}, "name"),
        ({"name": "ok", "rules": [{"topic": "a\nuser i"}]}, "rules[0].topic"),
        ({"name": "ok", "rules": [{"topic": "$SYS/#"}]}, "rules[0].topic"),
        ({"name": "ok", "rules": [{"topic": "i/AAAAAAAA/a/#"}]}, "rules[0].topic"),
        ({"name": "ok", "rules": []}, "rules"),
        ({"name": "ok", "rules": [{"topic": "#"}] * 21}, "rules"),
        ({"name": "ok", "rules": [{"topic": "#", "access": "all"}]}, "rules[0].access"),
    ],
)
def test_a_bad_user_is_refused_by_its_field(admin: httpx.Client, body: dict[str, Any], path: str) -> None:
    """Above all what would be a line of its own in the broker's files."""
    answer = admin.post("/mqtt-users", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path, answer.text


def test_a_whole_topic_is_taken_for_what_it_means(admin: httpx.Client) -> None:
    """People paste what they see: the tenant's own root in front is taken off."""
    root = made(admin)["root"]
    assert made(admin, rules=[{"topic": f"{root}a/+/state"}])["rules"] == [{"topic": "a/+/state", "access": "read"}]


def test_the_status_says_what_the_broker_has(asked: Served, admin: httpx.Client) -> None:
    """Accounts that may connect and that may not, and when the broker was last told."""
    before = admin.get("/mqtt/status").json()
    user = made(admin)
    until(lambda: admin.get("/mqtt/status").json()["renderedAt"] > before["renderedAt"], 5)
    now = admin.get("/mqtt/status").json()
    assert now["users"] == before["users"] + 1
    admin.patch(f"/mqtt-users/{user['name']}", json={"enabled": False})
    assert admin.get("/mqtt/status").json()["locked"] == before["locked"] + 1


def ask(server: Served, path: str, body: dict[str, Any], **sent: Any) -> httpx.Response:
    sent = sent or {"headers": {"Authorization": f"Bearer {SECRET}"}}
    return httpx.post(f"http://127.0.0.1:{server.http_port}/mosquitto-auth{path}", json=body, **sent)


def test_another_broker_gets_the_same_decisions(asked: Served, admin: httpx.Client) -> None:
    """EMQX and mosquitto-go-auth: who may connect, and what each may read, write and subscribe to."""
    device = Device(asked).join(key_for(admin))
    mqtt, topic = device.answer["mqtt"], device.topic
    user = made(admin, rules=[{"topic": "a/+/endpoints/#", "access": "read"}])
    ours = service_password(data_folder.server_key(asked.folder), "i")
    sibling = topic.rsplit("/", 1)[0] + "/AAAAAAAAAAAAAAAAAAAAAA"
    logins = [
        (mqtt["username"], mqtt["password"], 200),
        (mqtt["username"], "wrong", 403),
        (mqtt["username"], "", 403),
        (user["username"], user["password"], 200),
        ("i", ours, 200),
        ("i", "wrong", 403),
        ("nobody", "x", 403),
        ("a\0b", "x", 403),
    ]
    for name, password, expected in logins:
        answer = ask(asked, "/user", {"username": name, "password": password})
        assert (answer.status_code, answer.json()["result"]) == (expected, "allow" if expected == 200 else "deny")
        assert ask(asked, "/superuser", {"username": name}).status_code == 403
    agent, root = mqtt["username"], topic.split("/a/")[0]
    questions = [
        (agent, f"{topic}/endpoints/x", 2, 200),
        (agent, f"{topic}/agent/update", 1, 200),
        (agent, f"{topic}/#", 4, 200),
        (agent, f"{sibling}/endpoints/x", 2, 403),
        (agent, f"{root}/#", 4, 403),
        (agent, f"{root}/a/+/endpoints/x", 1, 403),
        (agent, "#", 4, 403),
        (agent, "$share/g/" + topic, 4, 403),
        (agent, f"{topic}/x", 7, 403),
        (user["username"], f"{topic}/endpoints/x", 1, 200),
        (user["username"], f"{root}/a/+/endpoints/#", 4, 200),
        (user["username"], f"{topic}/endpoints/x", 2, 403),
        (user["username"], f"{topic}/endpoints/x", 3, 403),
        (user["username"], f"{topic}/state", 1, 403),
        (user["username"], f"i/{user['username']}/own", 2, 200),
        ("i", "i/+/a/+/endpoints/#", 4, 200),
        ("i", "$SYS/broker/version", 1, 200),
        ("i", "$SYS/broker/version", 2, 403),
        ("nobody", "i/x", 1, 403),
    ]
    for name, what, acc, expected in questions:
        assert ask(asked, "/acl", {"username": name, "topic": what, "acc": acc}).status_code == expected, (
            name,
            what,
        )
    emqx = {"username": agent, "topic": f"{topic}/endpoints/x", "action": "publish", "clientid": "x"}
    assert ask(asked, "/acl", emqx).status_code == 200
    assert ask(asked, "/acl", emqx | {"topic": f"{sibling}/x"}).status_code == 403
    admin.post(f"/agents/{device.uuid}/revoke")
    assert ask(asked, "/user", {"username": agent, "password": mqtt["password"]}).status_code == 403
    assert ask(asked, "/acl", emqx).status_code == 403


def test_the_callbacks_are_behind_their_secret(asked: Served, server: Served) -> None:
    """In a header or, for brokers that send none, in the query; and closed where no secret is set."""
    body = {"username": "i"}
    assert ask(asked, "/superuser", body, params={"secret": SECRET}).status_code == 403
    assert ask(asked, "/superuser", body, params={"secret": "wrong"}).status_code == 401
    assert ask(asked, "/superuser", body, headers={"x": "y"}).status_code == 401
    assert ask(server, "/superuser", body, params={"secret": ""}).status_code == 404


@contextlib.contextmanager
def broker_process(stack: Stack, port: int, ops: int) -> Iterator[subprocess.Popen[bytes]]:
    with new_data_folder() as folder:
        environment = {
            "PATH": "/usr/bin:/bin",
            "IOTISTICA_DATA_DIR": str(folder),
            "IOTISTICA_DATABASE_URL": stack.database_url,
            "IOTISTICA_SECRET_KEY": stack.key.hex(),
            "IOTISTICA_MQTT_PORT": str(port),
            "IOTISTICA_OPS_PORT": str(ops),
        }
        command = [sys.executable, "-m", "iotistica", "broker"]
        process = subprocess.Popen(command, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_the_broker_runs_in_a_process_of_its_own(stack: Stack) -> None:
    """With the database's URL and the key alone; the others need only its address, and agents come through."""
    port, ops = free_port(), free_port()
    with broker_process(stack, port, ops), new_data_folder() as folder:
        url = f"http://127.0.0.1:{ops}/health"

        def is_well() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return bool(httpx.get(url).json()["status"] == "healthy")
            return False

        until(is_well, 20)
        settings = stack.urls() | {"IOTISTICA_MQTT_URL": f"mqtt://127.0.0.1:{port}"}
        rest = Served(folder, **settings, IOTISTICA_AGENTS_MQTT_URL=f"mqtt://127.0.0.1:{port}").start()
        try:
            rest.ready()
            rest.add_tenant("apart")
            admin = rest.login("apart", "admin")
            device = Device(rest).join(key_for(admin))
            with device.connect() as client:
                client.publish(f"{device.topic}/endpoints/x", b'{"readings":[{"metric":"m","value":1}]}')
            until(lambda: admin.get(f"/readings/{device.uuid}/latest").json()["count"] == 1, 20)
            assert "could not check that the external broker" not in rest.text()
        finally:
            assert rest.stop() == 0
