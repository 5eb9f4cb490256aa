"""Tenants by command: quotas, locked out, written out, removed."""

import csv
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from iotistica.storage.agents.directory import CACHE_SECONDS
from tests.devices import Device, key_for
from tests.serving import Served, served, until


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    """An instance of this file's own: its tenants come and go."""
    with served() as running:
        yield running


def readings(metrics: int, values: int = 1) -> bytes:
    points = [
        {"metric": f"m{n}", "value": v, "timestamp": f"2026-11-0{v + 1}T00:00:00Z"}
        for n in range(metrics)
        for v in range(values)
    ]
    return json.dumps({"readings": points}).encode()


def ledger(client: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = client.get("/ingestion/ledger").json()["readings"]
    return found


def has_stored(client: httpx.Client, count: int) -> bool:
    return ledger(client)["stored"] == count


def test_a_quota_bounds_agents(own: Served) -> None:
    """Registered or made by hand; a retired one makes room."""
    own.add_tenant("few")
    admin = own.login("few", "admin")
    assert own.command("tenants", "quotas", "few", "--agents", "2").returncode == 0
    key = key_for(admin)
    first = Device(own).join(key)
    assert own.add_agent("few")
    third = Device(own)
    refused = third.register(key)
    assert (refused.status_code, "can have 2 agents" in refused.json()["detail"]) == (409, True)
    assert admin.post("/agents", json={"name": "x"}).status_code == 409
    admin.post(f"/agents/{first.uuid}/retire")
    assert third.register(key).status_code == 200
    assert third.register(key).status_code == 200


def test_quotas_bound_series_and_readings(own: Served) -> None:
    """What is beyond is rejected and counted by its reason; what is within is stored, and so are other tenants'."""
    own.add_tenant("small")
    shown = own.command("tenants", "quotas", "small", "--series", "3", "--readings-minute", "1000").stdout
    bounds = dict(line.split() for line in shown.splitlines())
    assert (bounds["agents"], bounds["series"], bounds["readings_minute"]) == ("unbounded", "3", "1000")
    admin = own.login("small", "admin")
    device = Device(own).join(key_for(admin))
    time.sleep(CACHE_SECONDS)  # the consumers may have read the tenant before it had quotas
    with device.connect() as client:
        client.publish(f"{device.topic}/endpoints/x", readings(5))
        until(lambda: ledger(admin)["found"] == 5, what="found")
        assert ledger(admin)["rejectedByReason"] == {"series_quota": 2}  # type: ignore[comparison-overlap]
        assert admin.get(f"/readings/{device.uuid}/latest").json()["count"] == 3
        client.publish(f"{device.topic}/endpoints/x", readings(5, 2))
        until(lambda: ledger(admin)["found"] == 15, what="found")
        (stored, rejected) = (ledger(admin)["stored"], ledger(admin)["rejected"])
        assert (stored, rejected, ledger(admin)["duplicate"]) == (6, 6, 3)
        own.command("tenants", "quotas", "small", "--readings-minute", "0")
        until(lambda: _refused(admin, client, device), 20, "the new quota is known")
    assert "3 series" in own.command("tenants", "list").stdout
    own.command("tenants", "quotas", "small", "--none")
    assert "unbounded" in own.command("tenants", "quotas", "small").stdout


def _refused(admin: httpx.Client, client: object, device: Device) -> bool:
    client.publish(f"{device.topic}/endpoints/x", readings(1))  # type: ignore[attr-defined]
    return "rate_quota" in str(ledger(admin)["rejectedByReason"])


def test_a_disabled_tenant_is_locked_out_and_let_in_again(own: Served) -> None:
    """Users, keys and agents, live connections too; nothing of it is removed."""
    own.add_tenant("late")
    admin = own.login("late", "admin")
    key = key_for(admin)
    device = Device(own).join(key)
    integration = admin.post("/auth/api-keys", json={"name": "k"}).json()["key"]
    base = f"http://127.0.0.1:{own.http_port}/api/v1"
    with device.connect() as client:
        assert own.command("tenants", "disable", "late").returncode == 0
        client._socket.settimeout(5)
        assert client._socket.recv(1) == b""
    until(lambda: admin.get("/agents").status_code == 401 and device.get().status_code == 401, 3)
    assert httpx.get(f"{base}/agents", headers={"Authorization": f"Bearer {integration}"}).status_code == 401
    login = {"email": "admin-late@example.com", "password": "a-password-in-tests"}
    assert httpx.post(f"{base}/auth/login", json=login).status_code == 401
    assert Device(own).register(key).status_code == 401
    assert own.command("tenants", "enable", "late").returncode == 0
    until(lambda: admin.get("/agents").status_code == 200 and device.get().status_code == 200, 3)
    device.connect().close()


def test_a_tenant_is_written_out_and_removed(own: Served, tmp_path: Path) -> None:
    """Everything but secrets in CSV; afterwards nothing is left of it, and of its neighbour all."""
    tenant = own.add_tenant("leaving")
    own.add_tenant("staying")
    admin, stays = own.login("leaving", "admin"), own.login("staying", "admin")
    key = key_for(admin)
    admin.post("/auth/api-keys", json={"name": "an integration"})
    admin.post("/mqtt-users", json={"name": "reader"})
    devices = Device(own).join(key), Device(own).join(key_for(stays))
    for device, client in zip(devices, (admin, stays), strict=True):
        with device.connect() as connection:
            connection.publish(f"{device.topic}/endpoints/x", readings(2, 3))
        until(partial(has_stored, client, 6))
    folder = tmp_path / "out"
    done = own.command("tenants", "export", "leaving", str(folder))
    assert done.returncode == 0, done.stderr
    files = {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in folder.glob("*.csv")}
    assert len(files["readings"]) == 6
    assert [row["agent_uuid"] for row in files["agents"]] == [devices[0].uuid]
    assert {row["action"] for row in files["audit_events"]} >= {"tenant.added", "agent.registered", "api_key.added"}
    written = "".join(path.read_text() for path in folder.glob("*.csv"))
    assert devices[1].uuid not in written
    for secret in (key, devices[0].api_key, "$argon2", "$7$"):
        assert secret not in written
    again = own.command("tenants", "export", "leaving", str(folder))
    assert (again.returncode, "not empty" in again.stderr) == (1, True)

    assert files["payloads"] == [{"processed": "1", "dead": "0"}]
    assert [row["stored"] for row in files["ledger"]] == ["6"]
    nobody = own.command("tenants", "export", "nobody", str(tmp_path / "none"))
    assert (nobody.returncode, (tmp_path / "none").exists()) == (1, False)

    refused = own.command("tenants", "delete", "leaving", "--yes")
    assert (refused.returncode, "disable leaving" in refused.stderr) == (1, True)
    own.command("tenants", "disable", "leaving")
    unsure = own.command("tenants", "delete", "leaving")  # nothing is typed
    assert (unsure.returncode, "Nothing was deleted" in unsure.stderr) == (1, True)
    done = own.command("tenants", "delete", "leaving", "--yes")
    assert done.returncode == 0, done.stderr
    assert "leaving" not in own.command("tenants", "list").stdout
    _nothing_left(own, tenant)
    assert ledger(stays)["stored"] == 6
    assert stays.get(f"/readings/{devices[1].uuid}/latest").json()["count"] == 2


def _nothing_left(own: Served, tenant: str) -> None:
    import psycopg
    import redis

    runtime = own.runtime()
    with psycopg.connect(runtime.database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id' AND table_schema = 'public'"
        ).fetchall()
        assert len(tables) > 15
        for (table,) in tables:
            found = connection.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (tenant,)).fetchone()
            assert (table, found) == (table, (0,))
    client = redis.Redis.from_url(runtime.redis_url)
    assert [key for key in client.scan_iter(f"*{tenant}*") if b":limit:" not in key] == []
    client.close()


@pytest.mark.built_in_postgres
def test_commands_tell_what_to_do(own: Served) -> None:
    """What cannot be done is one line that names the next step, and code 1."""
    for arguments, says in (
        (("tenants", "disable", "nobody"), "tenants list"),
        (("users", "password", "nobody@example.com"), "users list"),
        (("keys", "revoke", "00000000-0000-4000-8000-000000000000"), "keys list"),
        (("keys", "add", "--fleet", "none"), "fleets list"),
        (("users", "add", "x@example.com", "--password", "short"), "at least 8 characters"),
        (("broker",), "IOTISTICA_DATABASE_URL"),
    ):
        done = own.command(*arguments)
        assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr


@pytest.mark.built_in_postgres
def test_a_folder_where_nothing_was_served_stays_empty(tmp_path: Path) -> None:
    """A wrong IOTISTICA_DATA_DIR is said so; a new database would look as if everything were lost."""
    for arguments in (("tenants", "list"), ("agents", "add"), ("keys", "add"), ("audit",)):
        done = Served(tmp_path / "wrong").command(*arguments)
        assert (done.returncode, "Check IOTISTICA_DATA_DIR" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "wrong").exists()


def test_the_audit_by_command(own: Served) -> None:
    """One line an event, with who typed and where."""
    own.add_tenant("audited")
    agent = own.add_agent("audited")
    own.command("agents", "revoke", agent["uuid"], "--reason", "stolen")
    lines = own.command("audit", "--tenant", "audited", "--subject", agent["uuid"]).stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["agent.added", "agent.revoked"]
    assert '"reason":"stolen"' in lines[1]
    assert " by command " in lines[1]
    assert own.command("audit", "--tenant", "audited", "--action", "nothing").stdout == "(none)\n"


def test_an_agent_is_shown_as_it_stands(own: Served) -> None:
    """With its credentials only while they work."""
    own.add_tenant("shown")
    agent = own.add_agent("shown")
    assert agent["password"] in own.command("agents", "show", agent["uuid"]).stdout
    own.command("agents", "revoke", agent["uuid"])
    shown = own.command("agents", "show", agent["uuid"]).stdout
    assert ("state     revoked" in shown, "password" in shown) == (True, False)


def test_keys_users_and_fleets_by_command(own: Served) -> None:
    """Made, listed and ended; a password that was set logs in."""
    fleet = own.command("fleets", "add", "line one").stdout.strip()
    key = own.command(
        "keys", "add", "--uses", "1", "--fleet", "line one", "--description", "for line one"
    ).stdout.strip()
    device = Device(own)
    assert device.register(key).json()["fleetUuid"] == fleet
    (line,) = [line for line in own.command("keys", "list").stdout.splitlines() if "for line one" in line]
    assert "1 of 1" in line
    assert own.command("keys", "revoke", line.split()[0]).returncode == 0
    assert "for line one" not in own.command("keys", "list").stdout
    assert fleet in own.command("fleets", "list").stdout
    assert device.uuid in own.command("agents", "list").stdout
    own.command("users", "add", "anna@example.com", "--username", "anna")
    done = own.command("users", "password", "anna@example.com", "--password", "another-long-one")
    assert done.returncode == 0, done.stderr
    body = {"username": "anna", "password": "another-long-one"}
    assert httpx.post(f"http://127.0.0.1:{own.http_port}/api/v1/auth/login", json=body).status_code == 200
    assert "anna@example.com" in own.command("users", "list").stdout
