"""Every route, every verb, everybody: who is let in, generated from the application and its one table."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from iotistica.api.http.access_tokens import AccessTokens
from iotistica.domain.access.permissions import AGENT, BROKER, PERMISSIONS, PUBLIC, ROLES, is_allowed
from iotistica.domain.key_derivation import derive
from iotistica.embedded import data_folder
from tests.application import http_routes
from tests.devices import Device, key_for
from tests.serving import Served, until

UNKNOWN = "00000000-0000-4000-8000-000000000000"
SECRET = "the secret of a broker"


class Route(NamedTuple):
    method: str
    path: str
    permission: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes() -> Iterator[Route]:
    """Every route of the application."""
    for path, handler in http_routes():
        for method in sorted(handler.http_methods - {"OPTIONS", "HEAD"}):
            yield Route(method, path, handler.opt.get("permission", ""))


ROUTES = sorted(set(routes()))
PRIVATE = [route for route in ROUTES if route.permission not in (PUBLIC, BROKER)]


class People(NamedTuple):
    """Credentials of everybody, in headers."""

    base: str
    roles: dict[str, dict[str, str]]
    keys: dict[str, dict[str, str]]
    nobody: dict[str, dict[str, str]]
    agent: Device
    unproven: Device
    other: Device
    stranger: httpx.Client
    ids: dict[str, str]


@pytest.fixture(scope="module")
def people(server: Served) -> People:
    tenant, _ = server.add_tenant("matrix"), server.add_tenant("strangers")
    roles: dict[str, dict[str, str]] = {role: dict(server.login("matrix", role).headers) for role in ROLES}
    roles = {role: {"authorization": headers["authorization"]} for role, headers in roles.items()}
    owner = server.login("matrix", "owner")
    keys: dict[str, dict[str, str]] = {
        role: {
            "authorization": f"Bearer {owner.post('/auth/api-keys', json={'name': role, 'role': role}).json()['key']}"
        }
        for role in ROLES
        if role != "owner"
    }
    agent, other, revoked = (Device(server).join(key_for(owner)) for _ in range(3))
    unproven = Device(server)
    unproven.register(key_for(owner))
    owner.post(f"/agents/{revoked.uuid}/revoke")
    gone = owner.post("/auth/api-keys", json={"name": "gone"}).json()
    owner.delete(f"/auth/api-keys/{gone['id']}")
    signer = AccessTokens(derive(data_folder.server_key(server.folder), "access-token"))
    claims = signer.check(roles["owner"]["authorization"].split()[1])
    old = signer.issue(user=claims.sub, session=claims.sid, now=datetime.now(UTC) - timedelta(hours=1))
    no_session = signer.issue(user=claims.sub, session=uuid4(), now=datetime.now(UTC))
    nobody = {
        "nothing": {},
        "garbage": {"authorization": "Bearer x.y.z"},
        "expired": {"authorization": f"Bearer {old}"},
        "session that is none": {"authorization": f"Bearer {no_session}"},
        "revoked key": {"authorization": f"Bearer {gone['key']}"},
        "revoked agent": {"x-device-api-key": revoked.api_key},
        "unknown agent": {"x-device-api-key": "v2_" + "0" * 70},
    }
    ids = {
        "agent": agent.uuid,
        "user": owner.get("/auth/me").json()["id"],
        "session": owner.get("/auth/sessions").json()["sessions"][0]["id"],
        "fleet": owner.post("/fleets", json={"name": "a fleet"}).json()["fleetUuid"],
        "link": owner.post("/auth/invitations", json={"email": "x@example.com"}).json()["id"],
        "api-keys": owner.get("/auth/api-keys").json()["keys"][0]["id"],
        "provision": owner.get("/provision/keys").json()["keys"][0]["id"],
        "id": a_dead_letter(owner, agent),
        "template": owner.post("/jobs/templates", json={"name": "t", "job_document": {}}).json()["template_id"],
        "job": a_job(owner, agent),
        "key": owner.post("/tags/definitions", json={"key": "colour"}).json()["key"],
        "layout": owner.post("/dashboard-layouts", json={"name": "x", "content": {}}).json()["layoutId"],
        "name": owner.post("/mqtt-users", json={"name": "reader"}).json()["name"],
        **an_incident(owner, agent),
    }
    assert tenant
    base = f"http://127.0.0.1:{server.http_port}"
    stranger = server.login("strangers", "owner")
    return People(base, roles, keys, nobody, agent, unproven, other, stranger, ids)


def a_dead_letter(owner: httpx.Client, agent: Device) -> str:
    """The id of a message that could not be read."""
    with agent.connect() as device:
        device.publish(f"{agent.topic}/endpoints/x", b"{bad")
    letters = until(lambda: owner.get("/ingestion/dead-letters").json()["deadLetters"], what="a dead letter")
    return str(letters[0]["id"])


def a_job(owner: httpx.Client, agent: Device) -> str:
    """The id of a job that waits for an agent: without one there is nothing to take."""
    wanted = {"job_name": "a job", "job_document": {}, "target_agents": [agent.uuid]}
    job = str(owner.post("/jobs/execute", json=wanted).json()["job"]["job_id"])
    until(lambda: owner.get(f"/jobs/executions/{job}").json()["job"]["counts"]["queued"], what="it is released")
    return job


def an_incident(owner: httpx.Client, agent: Device) -> dict[str, str]:
    """The ids of an incident, and of what opened it and tells of it."""
    mail = {"name": "x", "channel": {"kind": "email", "to": ["x@example.com"]}}
    target = owner.post("/notifications/targets", json=mail).json()["targetId"]
    rule = {"name": "x", "condition": {"kind": "threshold", "above": 0}, "scope": {"agent": agent.uuid}}
    ends_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    silence = {"matches": {"severities": ["info"]}, "endsAt": ends_at, "reason": "x"}
    steps = [{"afterSeconds": 60, "targets": [target]}]
    ids = {
        "target": target,
        "rule": owner.post("/anomaly/rules", json=rule).json()["ruleId"],
        "silence": owner.post("/anomaly/silences", json=silence).json()["silenceId"],
        "policy": owner.post("/notifications/escalations", json={"name": "x", "steps": steps}).json()["policyId"],
    }
    owner.post("/readings", params={"agent": agent.uuid}, json={"readings": [{"metric": "x", "value": 1}]})
    (alert,) = until(lambda: owner.get("/anomaly/alerts").json()["alerts"], what="an alert")
    return {**ids, "incident": alert["incidentId"], "alert": alert["alertId"]}


def address(route: Route, value: str) -> str:
    """The path with one value for each of its parameters."""
    return re.sub(r"{[^}]+}", value, route.path)


def call(people: People, route: Route, headers: dict[str, str], value: str = UNKNOWN) -> httpx.Response:
    body = {"content": b"{}"} if route.method in ("POST", "PUT", "PATCH") else {}
    headers = {**headers, "content-type": "application/json"}
    return httpx.request(route.method, people.base + address(route, value), headers=headers, timeout=30, **body)  # type: ignore[arg-type]


def test_the_matrix_has_every_route() -> None:
    """What it is generated from is the application itself."""
    assert len(PRIVATE) > 45
    assert {route.permission for route in ROUTES} - set(PERMISSIONS) == {PUBLIC, AGENT, BROKER}


@pytest.mark.parametrize("route", PRIVATE, ids=str)
def test_nobody_gets_in_without_a_live_credential(people: People, route: Route) -> None:
    """No token, a wrong one, one of yesterday, of a session that ended, a revoked or unknown key: 401 each."""
    for who, headers in people.nobody.items():
        answer = call(people, route, headers)
        assert (answer.status_code, who) == (401, who)
        assert answer.headers["www-authenticate"] == "Bearer"


# A log-out would end the sessions that the other tests use: tests/e2e/access/test_sessions.py has it.
@pytest.mark.parametrize("route", [route for route in PRIVATE if not route.path.endswith("/logout")], ids=str)
def test_a_role_may_what_the_table_says(people: People, route: Route) -> None:
    """And not a route more, as a user and with an API key; 403, and never because of what is asked for."""
    for role in ROLES:
        allowed = route.permission != AGENT and is_allowed(route.permission, role)
        for headers, is_key in ((people.roles[role], False), (people.keys.get(role), True)):
            if headers is None:
                continue
            answer = call(people, route, headers)
            expected = allowed and (PERMISSIONS[route.permission].api_keys or not is_key)
            assert (answer.status_code not in (401, 403)) == expected, (role, is_key, answer.text)
            assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("route", PRIVATE, ids=str)
def test_an_agent_reaches_itself_alone(people: People, route: Route) -> None:
    """Its own routes with its own uuid; another agent's is no different from one that nobody has."""
    for_agents = route.permission == AGENT or PERMISSIONS[route.permission].agents
    mine = {"x-device-api-key": people.agent.api_key}
    own = call(people, route, mine, people.agent.uuid)
    assert (own.status_code not in (401, 403, 404)) == for_agents, own.text
    assert own.status_code < 500, own.text
    if for_agents and "{" in route.path:
        theirs, unknown = call(people, route, mine, people.other.uuid), call(people, route, mine)
        assert (theirs.status_code, theirs.content) == (404, unknown.content)
    early = call(people, route, {"x-agent-key": people.unproven.api_key}, people.unproven.uuid)
    may_early = route.path.endswith(("/challenge", "/key-exchange"))
    assert (early.status_code != 403) == may_early, early.text


BODIES: dict[str, dict[str, Any]] = {
    "/replace": {"by": UNKNOWN},
    "/mqtt-users/{name:str}": {"newPassword": True},
    "/rollback": {"version": 1},
    "/update-agent": {"version": "1.0.1"},
    "/active": {"is_active": True},
    "/jobs/templates/{template:uuid}": {"name": "x", "job_document": {}},
    "/dashboard-layouts/{layout:uuid}": {"name": "x", "content": {}, "version": 1},
    "POST /tags": {"key": "a", "value": "b"},
    "PUT /tags": {"tags": {}},
    "/target-state": {"config": {}},
    "/fleets/{fleet:uuid}": {"name": "a name"},
    "/fleets/{fleet:uuid}/agents": {"agents": [UNKNOWN]},
    "/agents/remove": {"agents": [UNKNOWN]},
    "/apps": {"appId": 7},
    "/devices": {"name": "x", "protocol": "modbus"},
    "/devices/{name:str}": {"protocol": "modbus"},
    "/anomaly/rules/{rule:uuid}": {"name": "y", "condition": {"kind": "threshold", "above": 0}},
    "/notifications/targets/{target:uuid}": {"name": "y", "channel": {"kind": "email", "to": ["y@example.com"]}},
    "/notifications/escalations/{policy:uuid}": {
        "name": "y",
        "steps": [{"afterSeconds": 60, "targets": [UNKNOWN]}],
    },
    "/notes": {"note": "x"},
}
QUERIES = {"timeseries": {"metric": "m"}, "aggregate": {"metric": "m"}, "compare": {"from": "0", "to": "0"}}


@pytest.mark.parametrize("route", [r for r in PRIVATE if "{" in r.path and r.permission != AGENT], ids=str)
def test_a_foreign_id_looks_like_one_that_nobody_has(people: People, route: Route) -> None:
    """To the owner of another tenant, byte for byte, with everything else right."""
    (parameter, *_) = re.findall(r"{(\w+):", route.path)
    if parameter == "subject":
        parameter = "agent" if "/agents/" in route.path else "fleet"
    kind = next(
        (name for name in ("api-keys", "provision") if name in route.path and parameter == "key"), parameter
    )
    call = f"{route.method} {route.path}"
    body = next((b for name, b in BODIES.items() if _is(call, name)), {})
    answers = []
    for value in (people.ids[kind], UNKNOWN):
        path = address(route, value).removeprefix("/api/v1")
        query = next((query for end, query in QUERIES.items() if path.endswith(end)), {})
        sent = {"json": body} if route.method in ("POST", "PUT", "PATCH") else {}
        answers.append(people.stranger.request(route.method, path, params=query, **sent))  # type: ignore[arg-type]
    foreign, unknown = answers
    assert (foreign.status_code, foreign.content) == (404, unknown.content), foreign.text


def _is(call: str, name: str) -> bool:
    """Whether a call is one of `METHOD /end`, or of `/end` by any method."""
    method, _, end = name.rpartition(" ")
    return call.startswith(method) and call.endswith(end)


def test_nothing_of_a_tenant_is_in_anothers_lists(people: People) -> None:
    """Whatever a list is of."""
    lists = (
        "/agents",
        "/fleets",
        "/users",
        "/auth/api-keys",
        "/auth/invitations",
        "/provision/keys",
        "/mqtt-users",
    )
    for path in (*lists, "/audit/events?limit=1000", "/auth/sessions"):
        text = people.stranger.get(path).text
        assert not [value for value in people.ids.values() if f'"{value}"' in text], path


def test_a_scope_narrows_a_key(server: Served, people: People) -> None:
    """A key with scopes may those alone, and never beyond its role."""
    owner = server.login("matrix", "owner")
    wanted = {"name": "narrow", "role": "viewer", "scopes": ["readings.read", "fleets.read"]}
    key = owner.post("/auth/api-keys", json=wanted).json()["key"]
    headers = {"authorization": f"Bearer {key}"}
    statuses = {
        path: httpx.get(f"{people.base}/api/v1{path}", headers=headers).status_code
        for path in (f"/readings/{people.agent.uuid}/latest", "/agents", "/audit/events")
    }
    assert list(statuses.values()) == [200, 403, 403]
    beyond = owner.post("/auth/api-keys", json={"name": "y", "role": "viewer", "scopes": ["audit.read"]})
    assert (beyond.status_code, "needs the role admin" in beyond.text) == (400, True)
    unknown = owner.post("/auth/api-keys", json={"name": "x", "scopes": ["everything"]})
    assert (unknown.status_code, unknown.json()["errors"][0]["path"]) == (400, "scopes")


def test_nobody_gives_more_than_they_have(server: Served, people: People) -> None:
    """An admin makes no owner, changes none, and invites none; the last owner stays."""
    admin, owner = server.login("matrix", "admin"), server.login("matrix", "owner")
    me = owner.get("/auth/me").json()["id"]
    new = {"email": "new@example.com", "password": "a-new-password", "role": "owner"}
    assert admin.post("/users", json=new).status_code == 403
    assert admin.post("/auth/invitations", json={"email": "n@example.com", "role": "owner"}).status_code == 403
    assert admin.patch(f"/users/{me}", json={"role": "viewer"}).status_code == 403
    assert admin.delete(f"/users/{me}").status_code == 403
    assert admin.post(f"/users/{me}/password-reset").status_code == 403
    for change in ({"role": "admin"}, {"active": False}):
        assert owner.patch(f"/users/{me}", json=change).status_code == 409
    assert owner.delete(f"/users/{me}").status_code == 409


@pytest.mark.built_in_postgres
def test_the_application_is_no_owner_and_has_no_way_back(server: Served, people: People) -> None:
    """In a PostgreSQL of our own its connections log in as roles that own nothing, not as one that could return."""
    import psycopg

    assert people.stranger.get("/agents").status_code == 200
    with psycopg.connect(server.runtime().database_url) as owner:
        users = owner.execute(
            "SELECT DISTINCT application_name, usename FROM pg_stat_activity WHERE application_name LIKE 'iotistica%'"
        ).fetchall()
        assert {("iotistica api", "iotistica_api"), ("iotistica worker", "iotistica_worker")} <= set(users)
        may = owner.execute(
            "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb, (SELECT count(*) FROM pg_auth_members"
            " WHERE member = r.oid), (SELECT count(*) FROM pg_class WHERE relowner = r.oid AND relnamespace ="
            " 'public'::regnamespace) FROM pg_roles r WHERE rolname LIKE 'iotistica\\_%'"
        ).fetchall()
        assert may == [(False, 0, 0), (False, 0, 0)]
