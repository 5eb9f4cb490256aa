"""Targets of agents and fleets, updates and jobs."""

import httpx

from tests.e2e.examples.recorder import Recorder
from tests.serving import until

ENDPOINT = {
    "name": "boiler",
    "protocol": "modbus",
    "enabled": True,
    "pollInterval": 5000,
    "connection": {"host": "192.0.2.10", "port": 502},
    "dataPoints": [{"name": "temperature", "address": 100, "type": "holding", "dataType": "float32"}],
}
SERVICE = {"serviceId": "1", "serviceName": "web", "imageName": "nginx:1.27"}
APP = {"appId": 7, "appName": "dashboard", "services": [SERVICE]}
STEP = {"name": "restart", "type": "command", "command": "systemctl restart pump"}
DOCUMENT = {"version": "1.0", "steps": [STEP]}


def walk(call: Recorder, owner: httpx.Client, agent: str, fleet: str) -> None:
    """Write, deploy, compare and roll back the targets of both, and run a job."""
    for kind, uuid in (("fleets", fleet), ("agents", agent)):
        _target(call, owner, kind, uuid)
        _apps(call, owner, kind, uuid)
    _endpoints(call, owner, {"agent": agent})
    call(owner, "GET /agents/{agent}/target-state/explain", path={"agent": agent})
    call(owner, "GET /fleets/{fleet}/target-state/explain", path={"fleet": fleet})
    call(owner, "POST /agents/{agent}/update-agent", {"version": "1.0.548"}, path={"agent": agent}, status=202)
    call(owner, "GET /agents/{agent}/updates", path={"agent": agent})
    _templates(call, owner)
    _jobs(call, owner, agent)
    for kind, uuid in (("fleets", fleet), ("agents", agent)):
        call(owner, f"DELETE /{kind}/{{subject}}/target-state", path={"subject": uuid})


def _target(call: Recorder, owner: httpx.Client, kind: str, uuid: str) -> None:
    path, base = {"subject": uuid}, f"/{kind}/{{subject}}/target-state"
    target = {"config": {"logging": {"level": "info"}}, "apps": {}, "note": "quiet"}
    first = call(owner, f"PUT {base}", target, path=path)["version"]
    louder = {"config": {"logging": {"level": "debug"}}, "note": "louder"}
    second = call(owner, f"POST {base}", louder, path=path, query={"draft": "true"})["version"]
    call(owner, f"GET {base}", path=path)
    call(owner, f"GET {base}/history", path=path)
    call(owner, f"GET {base}/compare", path=path, query={"from": first, "to": second})
    call(owner, f"POST {base}/deploy", {"version": second}, path=path)
    call(owner, f"POST {base}/rollback", {"version": first, "note": "too loud"}, path=path)


def _apps(call: Recorder, owner: httpx.Client, kind: str, uuid: str) -> None:
    path, base = {"subject": uuid}, f"/{kind}/{{subject}}/apps"
    call(owner, f"POST {base}", APP, path=path)
    call(owner, f"GET {base}", path=path)
    path |= {"app": "7"}
    call(owner, f"GET {base}/{{app}}", path=path)
    call(owner, f"PUT {base}/{{app}}", {**APP, "appName": "dashboard 2"}, path=path)
    other = {"serviceName": "cache", "imageName": "valkey/valkey:8"}
    call(owner, f"PUT {base}/{{app}}/services/{{service}}", other, path=path | {"service": "2"})
    call(owner, f"DELETE {base}/{{app}}/services/{{service}}", path=path | {"service": "2"})
    call(owner, f"DELETE {base}/{{app}}", path=path)


def _endpoints(call: Recorder, owner: httpx.Client, path: dict[str, str]) -> None:
    base = "/agents/{agent}/devices"
    call(owner, f"POST {base}", ENDPOINT, path=path)
    call(owner, f"GET {base}", path=path)
    path = path | {"name": "boiler"}
    call(owner, f"GET {base}/{{name}}", path=path)
    call(owner, f"PATCH {base}/{{name}}", {"pollInterval": 1000}, path=path)
    call(owner, f"PUT {base}/{{name}}", ENDPOINT, path=path)
    call(owner, "GET /agents/{agent}/device-health", path=path)
    call(owner, f"DELETE {base}/{{name}}", path=path)


def _templates(call: Recorder, owner: httpx.Client) -> None:
    template = {"name": "restart the pump", "category": "pumps", "job_document": DOCUMENT}
    added = call(owner, "POST /jobs/templates", template, status=201)
    path = {"template": added["template_id"]}
    call(owner, "GET /jobs/templates")
    call(owner, "GET /jobs/templates/{template}", path=path)
    call(owner, "PATCH /jobs/templates/{template}", {"description": "after maintenance"}, path=path)
    call(owner, "PUT /jobs/templates/{template}", template, path=path)
    call(owner, "DELETE /jobs/templates/{template}", path=path, status=204)


def _jobs(call: Recorder, owner: httpx.Client, agent: str) -> None:
    job = {"job_name": "restart the pump", "target_agents": [agent], "job_document": DOCUMENT}
    path = {"job": call(owner, "POST /jobs/execute", job, status=201)["job"]["job_id"]}
    call(owner, "GET /jobs/executions", query={"limit": 2})
    call(owner, "GET /jobs/executions/{job}", path=path)
    call(owner, "GET /jobs/executions/{job}/agents", path=path)
    until(
        lambda: owner.get(f"/jobs/executions/{path['job']}").json()["job"]["status"] == "IN_PROGRESS", 20, "it runs"
    )
    call(owner, "POST /jobs/executions/{job}/pause", path=path)
    call(owner, "POST /jobs/executions/{job}/resume", path=path)
    call(owner, "GET /agents/{agent}/jobs", path={"agent": agent})
    call(owner, "GET /agents/{agent}/jobs/{job}", path={"agent": agent, **path})
    call(owner, "POST /agents/{agent}/jobs/{job}/cancel", path={"agent": agent, **path})
    second = owner.post("/jobs/execute", json=job).json()["job"]["job_id"]
    call(owner, "POST /jobs/executions/{job}/cancel", {"reason": "not now"}, path={"job": second})
    call(owner, "DELETE /jobs/{job}", path={"job": second}, status=204)
