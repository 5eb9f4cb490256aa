"""Lists say how many rows there are, and are sorted by what people sort by."""

from typing import Any

import httpx
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until

AGENTS = 7


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    """A tenant with seven agents in two fleets and none, of which two have sent something."""
    server.add_tenant("lists")
    owner = server.login("lists", "owner")
    fleets = [owner.post("/fleets", json={"name": name}).json()["fleetUuid"] for name in ("west", "east")]
    for number in range(AGENTS):
        fleet = {"fleetUuid": fleets[number % 2]} if number < 5 else {}
        agent = owner.post("/agents", json={"name": f"agent {number}", **fleet}).json()["agent"]
        if number in (2, 4):
            body = {"readings": [{"metric": "t", "value": 1}]}
            assert owner.post(f"/readings?agent={agent['uuid']}", json=body).status_code == 202

            def is_seen(uuid: str = agent["uuid"]) -> bool:
                return bool(owner.get(f"/agents/{uuid}").json()["lastSeen"])

            until(is_seen, 20, "it is seen")
    return owner


def pages(owner: httpx.Client, path: str, rows: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of a list, read two at a time; each page has the same total."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {**parameters, "limit": 2, **({"cursor": cursor} if cursor else {})}
        answer = owner.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page["count"] == len(page[rows])
        found += page[rows]
        cursor = page["next"]
        if not cursor:
            assert page["total"] == len(found)
            return found


def sort_key(agent: dict[str, Any], sort: str, fleets: dict[str | None, str]) -> str:
    if sort == "fleet":
        return fleets[agent["fleetUuid"]]
    if sort == "last_seen":
        return agent["lastSeen"] or ""
    return str({"id": agent["uuid"], "name": agent["name"], "status": agent["status"]}[sort])


@pytest.mark.parametrize("sort", ["id", "name", "last_seen", "status", "fleet"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_agents_are_sorted_and_counted(owner: httpx.Client, sort: str, order: str) -> None:
    """Page by page they are all there once, in order; agents that are alike are sorted by id."""
    fleets: dict[str | None, str] = {f["fleetUuid"]: f["name"] for f in owner.get("/fleets").json()["fleets"]}
    fleets[None] = ""
    agents = pages(owner, "/agents", "agents", sort=sort, order=order)
    assert len({agent["uuid"] for agent in agents}) == AGENTS
    keys = [(sort_key(agent, sort, fleets), agent["uuid"]) for agent in agents]
    assert keys == sorted(keys, reverse=order == "desc")


def test_the_agents_seen_last_come_first(owner: httpx.Client) -> None:
    """Without an order, since that is what people look for; a filter is counted, too."""
    agents = owner.get("/agents", params={"sort": "last_seen"}).json()["agents"]
    assert [agent["name"] for agent in agents[:2]] == ["agent 4", "agent 2"]
    filtered = owner.get("/agents", params={"search": "agent 1", "limit": 1}).json()
    assert (filtered["count"], filtered["total"]) == (1, 1)
    beyond = owner.get("/agents", params={"sort": "last_seen", "cursor": "bm90IGEgY3Vyc29yIG9mIHRoaXMgbGlzdA"})
    assert beyond.status_code == 400


LISTS = {
    "/fleets": "fleets",
    "/users": "users",
    "/provisioning-keys": "keys",
    "/jobs/executions": "executions",
    "/jobs/templates": "templates",
    "/audit/events": "events",
    "/metrics/catalog": "metrics",
}


@pytest.mark.parametrize("path", LISTS)
def test_every_list_has_a_total(server: Served, owner: httpx.Client, path: str) -> None:
    """The number on all pages, whichever page is asked for."""
    for number in range(3):
        key_for(owner)
        server.command("users", "add", f"person{number}@example.com", "--tenant", "lists")
        owner.post("/jobs/templates", json={"name": f"template {path} {number}", "job_document": DOCUMENT})
        owner.post("/jobs/execute", json={"job_name": "j", "target_type": "all", "job_document": DOCUMENT})
    assert pages(owner, path, LISTS[path])


DOCUMENT = {"version": "1.0", "steps": [{"name": "one", "type": "command", "command": "true"}]}


def test_the_canaries_of_a_job_can_be_asked_for(owner: httpx.Client) -> None:
    """They are counted apart from the others."""
    body = {"job_name": "careful", "target_type": "all", "job_document": DOCUMENT, "rollout": {"canary": 3}}
    job = owner.post("/jobs/execute", json=body)
    assert job.status_code == 201, job.text
    path = f"/jobs/executions/{job.json()['job']['job_id']}/agents"
    canaries = pages(owner, path, "device_statuses", canary="true")
    others = pages(owner, path, "device_statuses", canary="false")
    assert (len(canaries), len(others)) == (3, AGENTS - 3)
    assert all(agent["is_canary"] for agent in canaries)
    assert len(pages(owner, path, "device_statuses")) == AGENTS


def test_a_user_is_removed_by_command(server: Served, owner: httpx.Client) -> None:
    """Its sessions end; the last owner stays."""
    server.command("users", "add", "leaver@example.com", "--tenant", "lists", "--password", "a-password-in-tests")
    body = {"email": "leaver@example.com", "password": "a-password-in-tests"}
    token = owner.post("/auth/login", json=body).json()["accessToken"]
    done = server.command("users", "remove", "leaver@example.com", "--tenant", "lists")
    assert (done.returncode, done.stdout) == (0, "leaver@example.com is removed\n")
    headers = {"Authorization": f"Bearer {token}"}
    until(lambda: httpx.get(f"{owner.base_url}/agents", headers=headers).status_code == 401, 10, "logged out")
    assert owner.post("/auth/login", json=body).status_code == 401
    again = server.command("users", "remove", "leaver@example.com", "--tenant", "lists")
    assert "There is no user leaver@example.com" in again.stderr
    last = server.command("users", "remove", "owner-lists@example.com", "--tenant", "lists")
    assert (last.returncode, "last owner" in last.stderr) == (1, True)


def test_a_fleet_shows_a_poll_soon(server: Served, owner: httpx.Client) -> None:
    """An agent that has just fetched its target is not told to have never asked, in both explanations."""
    fleet = owner.post("/fleets", json={"name": "pollers"}).json()["fleetUuid"]
    device = Device(server).join(key_for(owner))
    assert owner.post(f"/fleets/{fleet}/agents", json={"agents": [device.uuid]}).status_code == 200
    target = {"config": {"logging": {"level": "debug"}}, "apps": {}}
    assert owner.put(f"/fleets/{fleet}/target-state", json=target).status_code == 200
    assert owner.get(f"/fleets/{fleet}/target-state/explain").json()["stages"]["silent"] == 1
    assert device.get(f"/device/{device.uuid}/state").status_code == 200

    def stages() -> dict[str, int]:
        found: dict[str, int] = owner.get(f"/fleets/{fleet}/target-state/explain").json()["stages"]
        return found

    until(lambda: stages()["not_reported"] == 1, 20, "the poll is shown")
    poll = owner.get(f"/agents/{device.uuid}/target-state/explain").json()["poll"]
    assert poll["polledAt"] is not None
