"""Measures how long the broker's accounts take to be rendered, and a revoked agent to be locked out.

  .venv/bin/python -m bench.accounts [--agents 10000] [--rounds 20] [--results FOLDER]

render   query the database, write the account files, notify the broker; measured by the application
mqtt     from the answer to POST /agents/{uuid}/revoke until the agent's live connection is closed
http     from the same answer until the agent's API key is refused
"""

import asyncio
import statistics
import time

import httpx
import uvloop

from bench.report import argument_parser, publish
from iotistica.embedded import data_folder
from iotistica.simulate import fleet
from iotistica.storage.postgres import Database
from tests.devices import Device, key_for
from tests.serving import Served, new_data_folder, until


async def enlist(server: Served, agents: int) -> None:
    """Add this many agents and their broker accounts."""
    url = server.runtime().database_url
    database = Database(url, size=1, name="bench", role="iotistica_worker", statement_seconds=120)
    await database.open()
    try:
        await fleet.create_agents(database, data_folder.server_key(server.folder), "many", agents)
    finally:
        await database.close()


def revoked(server: Served, admin: httpx.Client, key: str) -> dict[str, float]:
    """Revoke a new agent; return the seconds until it is locked out, and of the rendering that this caused."""
    device = Device(server).join(key)
    with device.connect() as client:
        assert device.get().status_code == 200
        time.sleep(0.5)  # until the rendering that let the agent in is over
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
    """Start an instance, measure it, and publish the report."""
    parser = argument_parser(__doc__)
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
    seconds = {
        name: {"median": statistics.median(r[name] for r in rounds), "max": max(r[name] for r in rounds)}
        for name in rounds[0]
    }
    figures = {"agents": options.agents, "rounds": options.rounds, "seconds": seconds}
    publish("accounts", options.results, figures)


if __name__ == "__main__":
    main()
