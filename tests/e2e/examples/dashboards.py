"""A dashboard of one agent."""

from typing import Any

import httpx

from tests.e2e.examples.recorder import Recorder


def walk(call: Recorder, owner: httpx.Client, agent: str) -> None:
    """Create a dashboard, share it, and delete it."""
    chart = {"kind": "chart", "x": 0, "y": 0, "width": 8, "height": 6, "title": "Boiler"}
    gauge = {"kind": "gauge", "x": 8, "y": 0, "width": 4, "height": 4, "low": 0, "high": 100, "critical": 90}
    series = [{"agent": None, "metric": "boiler.temperature"}]
    content: dict[str, Any] = {
        **{"range": "6h", "agent": agent},
        "panels": [{**chart, "series": series}, {**gauge, "series": series}],
    }
    body = {"name": "Boiler house", "content": content}
    layout = call(owner, "POST /dashboard-layouts", body, status=201)
    path = {"layout": layout["layoutId"]}
    call(owner, "GET /dashboard-layouts/{layout}", path=path)
    changed = {**body, "shared": True, "version": layout["version"]}
    call(owner, "PUT /dashboard-layouts/{layout}", changed, path=path)
    call(owner, "GET /dashboard-layouts")
    call(owner, "DELETE /dashboard-layouts/{layout}", path=path, status=204)
