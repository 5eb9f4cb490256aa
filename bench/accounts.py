"""How long the broker's accounts take: rendered for many agents, and from a revocation to a closed connection.

  .venv/bin/python -m bench.accounts [--agents 10000] [--rounds 20]

render   the database is asked, the file is written, the broker is told; as the application measures it
mqtt     from the answer to POST /agents/{uuid}/revoke until the agent's live connection is closed
http     until its API key is refused
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import uvloop

from iotistica.embedded import data_folder
from iotistica.simulate import fleet
from iotistica.storage.postgres import Database
from tests.devices import Device, key_for
from tests.serving import Served, new_data_folder, until


async def enlist(server: Served, agents: int) -> None:
    """Make so many agents with their accounts."""
    url = server.runtime().database_url
    database = Database(url, size=1, name="bench", role="iotistica_worker", statement_seconds=120)
    await database.open()
    try:
        await fleet.enlist(database, data_folder.server_key(server.folder), "many", agents)
    finally:
        await database.close()


def revoked(server: Served, admin: httpx.Client, key: str) -> dict[str, float]:
    """Seconds of one revocation, and of the rendering it caused."""
    device = Device(server).join(key)
    with device.connect() as client:
        assert device.get().status_code == 200
        time.sleep(0.5)  # the rendering that let it in is over
        before = admin.get("/mqtt/status").json()["renderedAt"]
        began = time.perf_counter()
        assert admin.post(f"/agents/{device.uuid}/revoke").status_code == 200
        client._socket.settimeout(10)
        assert client._socket.recv(1) == b""
        mqtt = time.perf_counter() - began
        until(lambda: device.get().status_code == 401, 10)
        http = time.perf_counter() - began
    status = until(lambda: (s := admin.get("/mqtt/status").json())["renderedAt"] != before and s)
    return {"mqtt": mqtt, "http": http, "render": status["renderedSeconds"]}


def main() -> None:
    """Start an instance, measure, print and keep the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with new_data_folder() as folder:
        server = Served(folder).start()
        try:
            server.ready()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(enlist(server, options.agents))
            admin = server.login()
            key = key_for(admin)
            rounds = [revoked(server, admin, key) for _ in range(options.rounds)]
        finally:
            server.stop()
    figures: dict[str, Any] = {
        name: {"median": statistics.median(r[name] for r in rounds), "max": max(r[name] for r in rounds)}
        for name in rounds[0]
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    report = {"machine": machine, "agents": options.agents, "rounds": options.rounds, "seconds": figures}
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "accounts.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
