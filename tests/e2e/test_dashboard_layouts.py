"""Dashboards: of one user or shared, and what their content may be."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import Served

AGENT = "5bc4f710-3739-4060-b9e6-765425cfda16"
PLACE = {"x": 0, "y": 0, "width": 6, "height": 4}
PANELS: list[dict[str, Any]] = [
    {"kind": "chart", **PLACE, "series": [{"agent": AGENT, "metric": "boiler.temperature"}], "compare": "week"},
    {"kind": "value", **PLACE, "series": [{"metric": "$device.temperature"}], "title": "Now"},
    {"kind": "gauge", **PLACE, "series": [{"metric": "pressure"}], "low": 0, "high": 12, "critical": 10},
    {"kind": "table", **PLACE, "series": [{"metric": "a"}, {"metric": "b"}]},
    {"kind": "states", **PLACE, "series": [{"metric": "pump.state"}]},
    {"kind": "agents", **PLACE, "agents": [None, AGENT]},
    {"kind": "text", **PLACE, "text": "<b>Hall 3</b>\nCall 42 first."},
]
CONTENT = {"range": "6h", "agent": AGENT, "device": None, "panels": PANELS}


@pytest.fixture(scope="module")
def clients(server: Served) -> dict[str, httpx.Client]:
    """A user of each role in one tenant, and a stranger."""
    server.add_tenant("layouts")
    server.add_tenant("layouts-strangers")
    return {
        "stranger": server.login("layouts-strangers", "owner"),
        **{role: server.login("layouts", role) for role in ("viewer", "operator", "manager", "owner")},
    }


def create(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/dashboard-layouts", json={"name": "Hall 3", "content": CONTENT} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


def changed(client: httpx.Client, layout: dict[str, Any], **fields: Any) -> httpx.Response:
    body = {name: layout[name] for name in ("name", "shared", "version", "content")} | fields
    return client.put(f"/dashboard-layouts/{layout['layoutId']}", json=body)


def test_a_layout_is_stored_as_it_was_written(clients: dict[str, httpx.Client]) -> None:
    """Every kind of panel, with its defaults filled in."""
    made = create(clients["viewer"])
    read = clients["viewer"].get(f"/dashboard-layouts/{made['layoutId']}").json()
    assert read == made
    assert (read["isMine"], read["mayChange"], read["shared"], read["version"]) == (True, True, False, 1)
    for panel, wanted in zip(read["content"]["panels"], PANELS, strict=True):
        series = [{"agent": None} | one for one in wanted.get("series", [])]
        assert panel | wanted | ({"series": series} if series else {}) == panel


def test_what_is_not_shared_is_seen_by_its_owner_alone(clients: dict[str, httpx.Client]) -> None:
    """Not even by an owner of the tenant; a shared one is seen by everyone in the tenant, and by no other tenant."""
    private = create(clients["viewer"], name="mine")["layoutId"]
    shared = create(clients["operator"], name="ours", shared=True)["layoutId"]
    for who, client in clients.items():
        seen = {line["layoutId"]: line for line in client.get("/dashboard-layouts").json()["layouts"]}
        assert (private in seen) == (who == "viewer")
        assert (shared in seen) == (who != "stranger")
        assert (client.get(f"/dashboard-layouts/{private}").status_code == 200) == (who == "viewer")
        assert (client.get(f"/dashboard-layouts/{shared}").status_code == 200) == (who != "stranger")
        if who not in ("viewer", "stranger"):
            assert client.delete(f"/dashboard-layouts/{private}").status_code == 404


def test_sharing_requires_its_permission(clients: dict[str, httpx.Client]) -> None:
    """A viewer arranges its own and changes no shared one; only who created one stops sharing it."""
    viewer, operator, manager = clients["viewer"], clients["operator"], clients["manager"]
    body = {"name": "x", "shared": True, "content": CONTENT}
    assert viewer.post("/dashboard-layouts", json=body).status_code == 403
    own = create(viewer)
    assert changed(viewer, own, shared=True).status_code == 403
    assert changed(viewer, own, name="renamed").json()["name"] == "renamed"
    shared = create(operator, shared=True)
    assert viewer.get(f"/dashboard-layouts/{shared['layoutId']}").json()["mayChange"] is False
    assert changed(viewer, shared, name="taken").status_code == 403
    assert viewer.delete(f"/dashboard-layouts/{shared['layoutId']}").status_code == 403
    assert changed(manager, shared, shared=False).status_code == 403
    shared = changed(manager, shared, name="better").json()
    assert (shared["name"], shared["isMine"], shared["version"]) == ("better", False, 2)
    assert changed(operator, shared, shared=False).status_code == 200
    assert manager.get(f"/dashboard-layouts/{shared['layoutId']}").status_code == 404


def test_a_change_of_an_old_version_is_refused(clients: dict[str, httpx.Client]) -> None:
    """So nobody undoes what somebody else has just done."""
    made = create(clients["operator"], shared=True)
    assert changed(clients["manager"], made, name="first").status_code == 200
    assert changed(clients["operator"], made, name="second").status_code == 409
    assert clients["operator"].get(f"/dashboard-layouts/{made['layoutId']}").json()["name"] == "first"


def test_what_a_user_leaves(server: Served, clients: dict[str, httpx.Client], tmp_path: Path) -> None:
    """What it had shared stays, and what was its own goes with it."""
    leaver = server.login("layouts", "admin")
    private, shared = create(leaver)["layoutId"], create(leaver, shared=True)["layoutId"]
    user = leaver.get("/auth/me").json()["id"]
    assert clients["owner"].delete(f"/users/{user}").status_code == 204
    left = clients["owner"].get(f"/dashboard-layouts/{shared}")
    assert (left.status_code, left.json()["isMine"]) == (200, False)
    assert server.command("tenants", "export", "layouts", str(tmp_path / "all")).returncode == 0
    stored = (tmp_path / "all" / "dashboard_layouts.csv").read_text()
    assert shared in stored
    assert private not in stored


def test_an_api_key_creates_what_is_shared(clients: dict[str, httpx.Client], server: Served) -> None:
    """It is nobody's own."""
    key = clients["owner"].post("/auth/api-keys", json={"name": "boards", "role": "operator"}).json()["key"]
    base = f"http://127.0.0.1:{server.http_port}/api/v1/dashboard-layouts"
    headers = {"Authorization": f"Bearer {key}"}
    answers = [
        httpx.post(base, headers=headers, json={"name": "by key", "shared": shared, "content": CONTENT})
        for shared in (False, True)
    ]
    assert [answer.status_code for answer in answers] == [403, 201]
    assert answers[1].json()["isMine"] is False


@pytest.mark.parametrize(
    ("panel", "path"),
    [
        ({"kind": "chart", "series": []}, "content.panels[0].series"),
        ({"kind": "chart", "series": [{"metric": "m"}], "x": 8, "width": 6}, "content.panels[0].width"),
        ({"kind": "gauge", "series": [{"metric": "m"}], "low": 5, "high": 5}, "content.panels[0].high"),
        ({"kind": "chart", "series": [{"metric": "m"}, {"metric": "m"}]}, "content.panels[0].series"),
        ({"kind": "agents", "agents": [AGENT, AGENT]}, "content.panels[0].agents"),
        (
            {"kind": "gauge", "series": [{"metric": "m"}], "warning": 9, "critical": 8},
            "content.panels[0].critical",
        ),
        ({"kind": "value", "series": [{"metric": "a"}, {"metric": "b"}]}, "content.panels[0].series"),
        ({"kind": "text", "text": "a\0b"}, "content.panels[0].text"),
        ({"kind": "web", "url": "https://evil.example"}, "content.panels[0].kind"),
        ({"kind": "text", "text": "x", "html": "y"}, "content.panels[0].html"),
    ],
)
def test_what_is_not_a_panel_is_refused_with_its_place(
    clients: dict[str, httpx.Client], panel: dict[str, Any], path: str
) -> None:
    """The error names the panel and the field."""
    body = {"name": "x", "content": {"panels": [PLACE | panel]}}
    answer = clients["viewer"].post("/dashboard-layouts", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path)
