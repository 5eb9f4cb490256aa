"""A plant to take pictures of: halls, a boiler with two weeks of history, an incident, a job, a dead letter."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.mqtt311 import Client311
from tests.serving import Served, until

HALLS = ("Hall 1", "Hall 2", "Hall 3")
STEP = timedelta(minutes=10)
DAYS = 15


def furnish(server: Served, owner: httpx.Client) -> dict[str, str]:
    """Arrange what the pictures show; return the UUIDs of the boiler's agent and of a simulated one, and of others."""
    until(lambda: owner.get("/agents", params={"status": "online"}).json()["total"] >= 20, 60, "agents are online")
    agents = owner.get("/agents", params={"sort": "name", "limit": 20}).json()["agents"]
    for hall, at in zip(HALLS, (0, 7, 14), strict=True):
        fleet = owner.post("/fleets", json={"name": hall}).json()["fleetUuid"]
        owner.post(f"/fleets/{fleet}/agents", json={"agents": [one["uuid"] for one in agents[at : at + 7]]})
    for one in agents[14:]:
        owner.post(f"/agents/{one['uuid']}/tags", json={"key": "site", "value": "berlin"})
    boiler = owner.post("/agents", json={"name": "boiler-house"}).json()
    rule = {
        **{"name": "Boiler too hot", "severity": "critical", "forSeconds": 0},
        **{"scope": {"series": "boiler.flow_temperature"}, "condition": {"kind": "threshold", "above": 82}},
    }
    added = owner.post("/anomaly/rules", json=rule)
    assert added.status_code == 201, added.text
    _history(server, boiler)
    job = {"job_name": "Report the version", "target_agents": [one["uuid"] for one in agents[:6]]}
    steps = [{"name": "version", "type": "shell", "command": "echo 1.0.547"}]
    asked = {**job, "job_document": {"version": "1", "steps": steps}}
    started = owner.post("/jobs/execute", json=asked)
    target = {"config": {"logging": {"level": "debug"}}, "note": "look closer"}
    owner.put(f"/agents/{agents[0]['uuid']}/target-state", json=target)
    until(lambda: owner.get("/anomaly/incidents", params={"status": "open"}).json()["total"], 60, "an incident")
    until(lambda: owner.get("/ingestion/dead-letters").json()["count"], 30, "a dead letter")
    incident = owner.get("/anomaly/incidents").json()["incidents"][0]["incidentId"]
    found = {"boiler": boiler["agent"]["uuid"], "agent": agents[0]["uuid"], "incident": incident}
    return {**found, "job": started.json()["job"]["job_id"]}


def _history(server: Served, boiler: dict[str, Any]) -> None:
    """Two weeks of a boiler that works by day, one reading in ten minutes, and an hour that is too hot at the end."""
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    begin = end - timedelta(days=DAYS)
    with Client311(server.mqtt_port, boiler["mqtt"]["username"], boiler["mqtt"]["password"]) as device:
        topic = f"{boiler['agent']['topic']}/endpoints/modbus"
        for day in range(DAYS):
            rows = []
            for step in range(144):
                at = begin + timedelta(days=day) + step * STEP
                hour = at.hour + at.minute / 60
                load = max(0.1, math.sin((hour - 5) / 14 * math.pi)) * (0.55 if at.weekday() > 4 else 1)
                wobble = math.sin(day * 7 + step * 1.3) * 0.8
                flow = 52 + 22 * load if end - at > timedelta(hours=1) else 87
                rows += [
                    _reading("flow_temperature", "°C", at, flow + wobble),
                    _reading("return_temperature", "°C", at, 41 + 11 * load + wobble),
                    _reading("gas", "m³/h", at, 38 * load + abs(wobble)),
                    _reading("burner_on", None, at, 1 if load > 0.3 or step % 9 < 2 else 0),
                ]
            device.publish(topic, json.dumps({"readings": rows}).encode())
        newest = [_reading("flow_temperature", "°C", datetime.now(UTC), 87.3), _reading("gas", "m³/h", end, 21)]
        device.publish(topic, json.dumps({"readings": newest}).encode())
        device.publish(topic, b'{"readings": [{"metric": "boiler.gas", "val')


def _reading(metric: str, unit: str | None, at: datetime, value: float) -> dict[str, Any]:
    named = {"deviceName": "boiler", "metric": metric, "value": round(value, 2), "timestamp": at.isoformat()}
    return {**named, "unit": unit} if unit else named
