"""Agents in numbers: found, tagged, moved, and whole fleets of them."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.serving import Served


@pytest.fixture(scope="module")
def manager(server: Served) -> httpx.Client:
    server.add_tenant("numbers")
    return server.login("numbers", "admin")


def add(manager: httpx.Client, name: str, **tags: str) -> str:
    answer = manager.post("/agents", json={"name": name})
    assert answer.status_code == 201, answer.text
    uuid = str(answer.json()["agent"]["uuid"])
    if tags:
        assert manager.put(f"/agents/{uuid}/tags", json={"tags": tags}).status_code == 200
    return uuid


def names(manager: httpx.Client, **query: Any) -> list[str]:
    answer = manager.get("/agents", params={"sort": "name", **query})
    assert answer.status_code == 200, answer.text
    return [agent["name"] for agent in answer.json()["agents"]]


def test_agents_are_found_by_name_tags_fleet_and_state(manager: httpx.Client) -> None:
    """Every condition holds at once; a selector says it as people write it."""
    one = add(manager, "Found North 1", site="berlin", line="1")
    two = add(manager, "Found North 2", site="berlin", line="2", spare="yes")
    three = add(manager, "Found South", site="bonn", line="1")
    four = add(manager, "Found bare")
    found = {"search": "found"}
    assert names(manager, **found) == ["Found North 1", "Found North 2", "Found South", "Found bare"]
    assert names(manager, search="NORTH") == ["Found North 1", "Found North 2"]
    assert names(manager, search=three[:13]) == ["Found South"]
    assert names(manager, selector="site=berlin", **found) == ["Found North 1", "Found North 2"]
    assert names(manager, selector="site in (berlin, bonn),line!=2", **found) == ["Found North 1", "Found South"]
    assert names(manager, selector="site,!spare", **found) == ["Found North 1", "Found South"]
    assert names(manager, selector="!site", **found) == ["Found bare"]
    assert names(manager, selector="line notin (1)", **found) == ["Found North 2", "Found bare"]
    fleet = manager.post("/fleets", json={"name": "found fleet"}).json()["fleetUuid"]
    manager.post(f"/fleets/{fleet}/agents", json={"agents": [one, four]})
    assert names(manager, fleet=fleet) == ["Found North 1", "Found bare"]
    assert names(manager, fleet="none", **found) == ["Found North 2", "Found South"]
    assert manager.patch(f"/agents/{two}/active", json={"is_active": False}).json()["active"] is False
    assert names(manager, filter="inactive", **found) == ["Found North 2"]
    assert names(manager, status="new", selector="line=1") == ["Found North 1", "Found South"]
    assert names(manager, online=True, **found) == []
    asked = manager.post("/agents/query", json={"tagSelectors": {"site": ["berlin", "bonn"], "line": "1"}}).json()
    assert {agent["uuid"] for agent in asked["agents"]} == {one, three}
    for wrong in ("a b=c", "site in berlin", "x" * 100, ",".join(f"k{n}" for n in range(30))):
        answer = manager.get("/agents", params={"selector": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "selector"), wrong


def test_pages_go_on_after_the_last_one_seen(manager: httpx.Client) -> None:
    """In either order, by cursor or by number, with none twice and none left out."""
    uuids = {add(manager, f"page {number % 3}", batch="pages") for number in range(7)}
    for sort in ("id", "name"):
        seen: list[str] = []
        cursor = None
        while True:
            query = {"selector": "batch=pages", "limit": "3", "sort": sort} | ({"cursor": cursor} if cursor else {})
            page = manager.get("/agents", params=query).json()
            seen += [agent["uuid"] for agent in page["agents"]]
            if (cursor := page["next"]) is None:
                break
        assert (len(seen), set(seen)) == (7, uuids)
    numbered = manager.get("/agents", params={"selector": "batch=pages", "limit": 3, "page": 3}).json()
    assert numbered["pagination"] == {"page": 3, "limit": 3, "totalDevices": 7, "totalPages": 3}
    assert numbered["count"] == 1
    assert manager.get("/agents", params={"cursor": "%%%"}).status_code == 400


def test_tags_of_one_agent(manager: httpx.Client) -> None:
    """Set, changed, taken away, replaced as a whole; what is wrong names its key and changes nothing."""
    path = f"/agents/{add(manager, 'tagged')}/tags"
    assert manager.post(path, json={"key": "line", "value": 4}).json()["tags"] == {"line": "4"}
    assert manager.post(path, json={"key": "spare", "value": True}).json()["tags"] == {"line": "4", "spare": "true"}
    assert manager.delete(f"{path}/line").json()["tags"] == {"spare": "true"}
    assert manager.put(path, json={"tags": {"a": "1", "b.c/d": "2"}}).json()["tags"] == {"a": "1", "b.c/d": "2"}
    for tags, key in (
        ({"a": "x" * 1_000_000}, "a"),
        ({"sp ace": "1"}, "sp ace"),
        ({"a": {"b": 1}}, "a"),
        ({"a": "\x1b[31m"}, "a"),
        ({f"k{n}": "v" for n in range(51)}, "tags"),
    ):
        answer = manager.put(path, json={"tags": tags})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, key)
    assert manager.get(path).json()["tags"] == {"a": "1", "b.c/d": "2"}
    for n in range(48):
        manager.post(path, json={"key": f"k{n}", "value": "v"})
    assert manager.post(path, json={"key": "one-more", "value": "v"}).status_code == 400
    assert len(manager.get(path).json()["tags"]) == 50


def test_tags_of_many_agents_change_at_once_with_a_result_for_each(manager: httpx.Client) -> None:
    """Those that are unknown are named, and the others are changed."""
    one, two = add(manager, "bulk 1", old="x"), add(manager, "bulk 2", old="y")
    unknown = str(uuid4())
    body = {"agentUuids": [one, unknown, two], "tags": {"wave": "1"}, "remove": ["old"]}
    answer = manager.post("/agents/tags/bulk", json=body).json()
    assert [row["status"] for row in answer["results"]] == ["ok", "not_found", "ok"]
    assert (answer["changed"], answer["notFound"]) == (2, 1)
    assert manager.get(f"/agents/{one}/tags").json()["tags"] == {"wave": "1"}
    chosen = manager.post("/agents/tags/bulk", json={"selector": "wave=1", "tags": {"wave": "2"}}).json()
    assert {row["uuid"] for row in chosen["results"]} == {one, two}
    assert names(manager, selector="wave=2") == ["bulk 1", "bulk 2"]
    assert manager.post("/agents/tags/bulk", json={"tags": {"wave": "3"}}).status_code == 400


def test_a_defined_key_takes_its_values_alone(manager: httpx.Client) -> None:
    """And is not defined against what agents have."""
    uuid = add(manager, "defined", colour="red")
    body = {"key": "colour", "description": "of the cabinet", "values": ["green", "blue"]}
    assert "red" in manager.post("/tags/definitions", json=body).json()["error"]
    assert manager.post("/tags/definitions", json=body | {"values": ["red", "blue"]}).status_code == 201
    assert manager.post("/tags/definitions", json=body).status_code == 409
    refused = manager.post(f"/agents/{uuid}/tags", json={"key": "colour", "value": "green"})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "colour")
    assert manager.post(f"/agents/{uuid}/tags", json={"key": "colour", "value": "blue"}).status_code == 200
    assert manager.get("/tags/values/colour").json()["values"] == {"blue": 1}
    assert "colour" in manager.get("/tags/keys").json()["values"]
    changed = manager.put("/tags/definitions/colour", json={"values": ["blue", "green"]})
    assert changed.json()["values"] == ["blue", "green"]
    assert [one["key"] for one in manager.get("/tags/definitions").json()["definitions"]] == ["colour"]
    assert manager.delete("/tags/definitions/colour").status_code == 204
    assert manager.delete("/tags/definitions/colour").status_code == 404


def test_a_fleet_is_made_changed_filled_and_deleted(manager: httpx.Client) -> None:
    """One with agents only if these are released; a name is taken once."""
    made = manager.post("/fleets", json={"name": "line 7", "description": "paint", "tags": {"site": "ulm"}})
    assert (made.status_code, made.json()["tags"]) == (201, {"site": "ulm"})
    fleet = made.json()["fleetUuid"]
    path = f"/fleets/{fleet}"
    assert manager.post("/fleets", json={"name": "line 7"}).status_code == 409
    other = manager.post("/fleets", json={"name": "line 8"}).json()["fleetUuid"]
    assert manager.patch(f"/fleets/{other}", json={"name": "line 7"}).status_code == 409
    assert manager.patch(path, json={"description": None}).json()["description"] is None
    assert manager.put(path, json={"name": "line 7b"}).json()["tags"] == {}
    one, unknown = add(manager, "member"), str(uuid4())
    moved = manager.post(f"{path}/agents", json={"agents": [one, unknown]}).json()
    assert [row["status"] for row in moved["results"]] == ["ok", "not_found"]
    assert manager.delete(f"/fleets/{other}/agents/{one}").status_code == 404
    assert manager.get(path).json()["stats"] == {"agents": 1, "online": 0, "silent": 0, "offline": 0}
    refused = manager.delete(path)
    assert (refused.status_code, "release=true" in refused.json()["error"]) == (409, True)
    assert manager.delete(path, params={"release": True}).status_code == 204
    assert manager.get(path).status_code == 404
    assert manager.get(f"/agents/{one}").json()["fleetUuid"] is None
    taken = manager.post(f"/fleets/{other}/agents/remove", json={"agents": [one]}).json()
    assert taken["results"] == [{"uuid": one, "status": "not_found"}]
    assert manager.delete(f"/agents/{one}").json()["state"] == "retired"


def test_a_fleet_that_is_released_leaves_its_agents_without_its_target(manager: httpx.Client) -> None:
    """What they are told has a higher number then."""
    fleet = manager.post("/fleets", json={"name": "with target"}).json()["fleetUuid"]
    one = add(manager, "told")
    manager.post(f"/fleets/{fleet}/agents", json={"agents": [one]})
    assert manager.put(f"/fleets/{fleet}/target-state", json={"config": {"a": 1}}).status_code == 200
    before = manager.get(f"/agents/{one}/target-state/explain").json()["wanted"]
    assert before["config"] == {"a": 1}
    assert manager.delete(f"/fleets/{fleet}", params={"release": True}).status_code == 204
    after = manager.get(f"/agents/{one}/target-state/explain").json()["wanted"]
    assert (after["config"], after["version"] > before["version"]) == ({}, True)
