"""Readings in and out, what an agent reports, and messages that could not be stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.e2e.examples.recorder import Recorder
from tests.mqtt311 import Client311
from tests.serving import until


def walk(call: Recorder, owner: httpx.Client, created: dict[str, Any], base: str) -> None:
    """Send readings, a report and logs as the agent, and read everything back."""
    agent: str = created["agent"]["uuid"]
    path = {"agent": agent}
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    readings = [
        {"deviceName": "boiler", "metric": "temperature", "unit": "degC", "value": 60 + n, "timestamp": at}
        for n in range(3)
        for at in [(now + timedelta(minutes=n)).isoformat()]
    ]
    call(owner, "POST /readings", {"readings": readings}, query={"agent": agent}, status=202)
    until(lambda: owner.get(f"/readings/{agent}/latest").json()["count"], 20, "they are stored")
    call(owner, "GET /metrics/catalog", query={"search": "temp"})
    call(owner, "GET /readings/{agent}/latest", path=path)
    call(owner, "GET /readings/{agent}/summary", path=path)
    call(owner, "GET /readings/{agent}/timeseries", path=path, query={"metric": "temperature", "start": "1h"})
    hourly = {"metric": "boiler.temperature", "interval": "1h"}
    call(owner, "GET /readings/{agent}/aggregate", path=path, query=hourly)
    query = {"metric": "temperature", "agent_uuids": [agent], "downsample": "10m-avg"}
    call(owner, "POST /readings/query", {"start": "1h", "queries": [query]})
    call(owner, "GET /readings/{agent}/export", path=path, query={"start": "1h"})
    _reports(call, owner, agent, base)
    _dead_letters(call, owner, created)
    call(owner, "GET /ingestion/ledger", query={"agent": agent})
    call(owner, "GET /ingestion/health")
    call(owner, "GET /agents/{agent}/timeline", path=path, query={"kind": "agent", "limit": 2})
    call(owner, "DELETE /readings/{agent}", path=path, query={"metric": "boiler.temperature"}, status=202)
    call(owner, "GET /erasures")


def _reports(call: Recorder, owner: httpx.Client, agent: str, base: str) -> None:
    path = {"agent": agent}
    rotated = call(owner, "POST /device/{agent}/rotate-key", {}, path=path)
    headers = {"X-Device-API-Key": rotated["apiKey"]}
    interface = {"name": "eth0", "ip4": "192.0.2.20", "mac": "02:00:00:00:00:01"}
    state = {
        "version": 1,
        "apps": {},
        "config": {},
        "agent_version": "1.0.547",
        "network_interfaces": [interface],
        "devices": [{"name": "boiler", "connected": True}],
    }
    assert httpx.patch(f"{base}/api/v1/device/state", headers=headers, json={agent: state}).status_code == 200
    line = b'{"level":"warn","message":"boiler answers slowly","serviceName":"modbus"}\n'
    assert httpx.post(f"{base}/api/v1/device/{agent}/logs", headers=headers, content=line).status_code == 202
    until(lambda: owner.get(f"/agents/{agent}/current-state").status_code == 200, 20, "the report")
    until(lambda: owner.get(f"/agents/{agent}/logs").json()["count"], 20, "the line")
    call(owner, "GET /agents/{agent}/current-state", path=path)
    call(owner, "GET /agents/{agent}/network-interfaces", path=path)
    call(owner, "GET /agents/{agent}/reported-devices", path=path)
    call(owner, "GET /agents/{agent}/logs", path=path, query={"level": "warn", "limit": 2})
    call(owner, "GET /agents/{agent}/logs/services", path=path)


def _dead_letters(call: Recorder, owner: httpx.Client, created: dict[str, Any]) -> None:
    mqtt = created["mqtt"]
    config = mqtt["brokerConfig"]
    topic = mqtt["topics"]["publish"][0].removesuffix("/#")
    with Client311(config["port"], config["username"], config["password"]) as client:
        for _ in range(2):
            client.publish(f"{topic}/endpoint/modbus", b'{"readings": []}')

    def letters() -> Any:
        found = owner.get("/ingestion/dead-letters").json()["deadLetters"]
        return found if len(found) == 2 else None

    first, second = until(letters, 20, "the dead letters")
    call(owner, "GET /ingestion/dead-letters", query={"reason": "unknown_topic"})
    call(owner, "GET /ingestion/dead-letters/{id}", path={"id": first["id"]})
    call(owner, "POST /ingestion/dead-letters/discard", {"ids": [first["id"]]})
    call(owner, "POST /ingestion/dead-letters/replay", {"ids": [second["id"]]})
