"""Agents, their tags, fleets, keys and broker users."""

from typing import Any

import httpx

from tests.e2e.examples.recorder import Recorder


def walk(call: Recorder, owner: httpx.Client) -> tuple[dict[str, Any], str]:
    """Create a fleet with an agent and return both, the agent as its creation answered."""
    fleet = call(owner, "POST /fleets", {"name": "berlin", "description": "all in Berlin"}, status=201)["fleetUuid"]
    created: dict[str, Any] = call(owner, "POST /agents", {"name": "pump house", "fleetUuid": fleet}, status=201)
    path = {"agent": created["agent"]["uuid"]}
    _fleets(call, owner, fleet, path["agent"])
    call(owner, "GET /agents", query={"search": "pump", "sort": "last_seen", "limit": 2})
    call(owner, "GET /agents/{agent}", path=path)
    call(owner, "PATCH /agents/{agent}", {"name": "pump house 1"}, path=path)
    call(owner, "PATCH /agents/{agent}/active", {"is_active": True}, path=path)
    _tags(call, owner, path)
    call(owner, "GET /overview")
    call(owner, "GET /overview/map", query={"tag": "site"})
    call(owner, "GET /agents/{agent}/why", path=path)
    call(owner, "GET /agents/{agent}/gaps", path=path)
    _provisioning(call, owner)
    _mqtt_users(call, owner)
    return created, fleet


def _fleets(call: Recorder, owner: httpx.Client, fleet: str, agent: str) -> None:
    path = {"fleet": fleet}
    call(owner, "GET /fleets")
    call(owner, "GET /fleets/{fleet}", path=path)
    call(owner, "PATCH /fleets/{fleet}", {"description": "all sites in Berlin"}, path=path)
    call(owner, "PUT /fleets/{fleet}", {"name": "berlin", "tags": {"country": "de"}}, path=path)
    call(owner, "POST /fleets/{fleet}/agents/remove", {"agents": [agent]}, path=path)
    call(owner, "POST /fleets/{fleet}/agents", {"agents": [agent]}, path=path)
    call(owner, "DELETE /fleets/{fleet}/agents/{agent}", path={**path, "agent": agent}, status=204)
    call(owner, "POST /fleets/{fleet}/agents", {"agents": [agent]}, path=path)
    empty = owner.post("/fleets", json={"name": "empty"}).json()["fleetUuid"]
    call(owner, "DELETE /fleets/{fleet}", path={"fleet": empty}, status=204)


def _tags(call: Recorder, owner: httpx.Client, path: dict[str, str]) -> None:
    call(owner, "PUT /agents/{agent}/tags", {"tags": {"site": "berlin", "line": "1"}}, path=path)
    call(owner, "POST /agents/{agent}/tags", {"key": "spare", "value": "no"}, path=path)
    call(owner, "GET /agents/{agent}/tags", path=path)
    call(owner, "DELETE /agents/{agent}/tags/{key}", path={**path, "key": "spare"})
    bulk = {"selector": "site=berlin", "tags": {"line": "2"}}
    call(owner, "POST /agents/tags/bulk", bulk)
    call(owner, "POST /agents/query", {"tagSelectors": {"site": ["berlin", "bonn"]}})
    call(owner, "GET /tags/keys")
    call(owner, "GET /tags/values/{key}", path={"key": "site"})
    definition = {"key": "shift", "description": "who is there", "values": ["day", "night"]}
    call(owner, "POST /tags/definitions", definition, status=201)
    call(owner, "GET /tags/definitions")
    call(owner, "PUT /tags/definitions/{key}", {"values": ["day"]}, path={"key": "shift"})
    call(owner, "DELETE /tags/definitions/{key}", path={"key": "shift"}, status=204)


def _provisioning(call: Recorder, owner: httpx.Client) -> None:
    key = call(owner, "POST /provision/keys", {"maxDevices": 20, "expiresInDays": 30}, status=201)
    call(owner, "GET /provision/keys")
    call(call.client(), "POST /provision/agent", {"key": key["key"], "agentName": "fan"}, status=201)
    call(owner, "DELETE /provision/keys/{key}", path={"key": key["id"]}, status=204)


def _mqtt_users(call: Recorder, owner: httpx.Client) -> None:
    rules = [{"topic": "a/+/endpoints/#", "access": "read"}]
    call(owner, "POST /mqtt-users", {"name": "scada", "rules": rules}, status=201)
    path = {"name": "scada"}
    call(owner, "GET /mqtt-users")
    call(owner, "GET /mqtt-users/{name}", path=path)
    call(owner, "PATCH /mqtt-users/{name}", {"enabled": False}, path=path)
    call(owner, "PUT /mqtt-users/{name}", {"rules": rules, "enabled": True, "newPassword": True}, path=path)
    call(owner, "DELETE /mqtt-users/{name}", path=path, status=204)
    call(owner, "GET /mqtt/status")


def leave(call: Recorder, owner: httpx.Client) -> None:
    """Lock agents out, let one register again, replace and retire them."""
    uuids = [owner.post("/agents", json={"name": f"old {n}"}).json()["agent"]["uuid"] for n in range(4)]
    path = {"agent": uuids[0]}
    call(owner, "POST /agents/{agent}/revoke", {"reason": "stolen"}, path=path)
    call(owner, "POST /agents/{agent}/re-enrol", {"hours": 24}, path=path)
    call(owner, "POST /agents/{agent}/replace", {"by": uuids[2]}, path={"agent": uuids[1]})
    call(owner, "POST /agents/{agent}/retire", path={"agent": uuids[2]})
    call(owner, "DELETE /agents/{agent}", path={"agent": uuids[3]})
