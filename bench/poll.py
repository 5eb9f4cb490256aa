"""Measures how fast agents' polls are answered, compared with a Litestar route that returns a constant.

  .venv/bin/python -m bench.poll [--agents 10000] [--seconds 10] [--rounds 3] [--rate 1000] [--results FOLDER]

constant   a Litestar application with one route, served like the platform, in a separate process
304        polls with the ETag of the agent's current target; every agent in turn
200        polls without an ETag, answered with the whole target (apps and 20 endpoints)
sustained  304s at a fixed rate, however long they take; each request's time counts from when it was due

Closed loops on 32 connections take turns; the client is a separate process on the same machine.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast
from uuid import uuid4

import httpx
import psycopg
import uvloop
from litestar import Litestar, get

from bench.report import argument_parser, publish
from iotistica import listening_socket
from iotistica.api.http import server as serving
from iotistica.domain.access import credentials
from iotistica.embedded import data_folder
from tests.serving import Served, free_port, new_data_folder, until

CONNECTIONS = 32
ENDPOINTS = [
    {"name": f"plc-{n}", "protocol": "modbus", "pollInterval": 1000, "connection": {"host": "10.0.0.7", "unit": n}}
    for n in range(20)
]
TARGET = {
    "apps": {"1001": {"appId": 1001, "appName": "edge", "services": []}},
    "config": {"endpoints": ENDPOINTS, "logging": {"level": "info"}},
}


class Agents(NamedTuple):
    uuids: list[str]
    keys: list[str]


def enlist(server: Served, owner: httpx.Client, number: int) -> Agents:
    """Add agents of one fleet with the same target, each with its own key."""
    fleet = owner.post("/fleets", json={"name": "polling"}).json()["fleetUuid"]
    agents = Agents(
        [str(uuid4()) for _ in range(number)], [f"v2_{uuid4().hex[:8]}_{uuid4().hex * 2}" for _ in range(number)]
    )
    key = data_folder.server_key(server.folder)
    with psycopg.connect(server.runtime().database_url) as database:
        (tenant,) = database.execute("SELECT tenant_id FROM fleets").fetchone() or ("",)
        with database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO agents (agent_uuid, tenant_id, name, state, fleet_uuid)"
                " VALUES (%s, %s, 'x', 'active', %s)",
                [(uuid, tenant, fleet) for uuid in agents.uuids],
            )
            cursor.executemany(
                "INSERT INTO agent_keys (digest, tenant_id, agent_uuid, used_at) VALUES (%s, %s, %s, now())",
                [(credentials.digest(key, k), tenant, u) for u, k in zip(*agents, strict=True)],
            )
    assert owner.put(f"/fleets/{fleet}/target-state", json=TARGET).status_code == 200
    return agents


def request(path: str, **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{lines}\r\n".encode()


def polls(agents: Agents, tags: list[str] | None) -> list[bytes]:
    return [
        request(
            f"/api/v1/device/{uuid}/state",
            **{"X-Device-API-Key": key},
            **({"If-None-Match": tag} if (tag := tags[at] if tags else "") else {}),
        )
        for at, (uuid, key) in enumerate(zip(*agents, strict=True))
    ]


class Client(asyncio.Protocol):
    """One connection: a request at a time, and as little work about it as can be."""

    transport: asyncio.Transport
    waiting: asyncio.Future[bytes] | None = None
    got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, end, body = self.got.partition(b"\r\n\r\n")
        if not end:
            return
        _, has, rest = head.lower().partition(b"content-length: ")
        size = int(rest.split(b"\r\n", 1)[0]) if has and b" 304 " not in head[:13] else 0
        if len(body) >= size and self.waiting is not None:
            waiting, self.waiting, self.got = self.waiting, None, b""
            waiting.set_result(head)

    async def ask(self, request: bytes) -> bytes:
        """The head of the answer."""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting


async def connected(port: int, number: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(number)]


async def closed_loop(port: int, requests: list[bytes], status: bytes, seconds: float) -> float:
    """Requests a second, each connection asking again as soon as it is answered."""
    clients, turn, answered = await connected(port, CONNECTIONS), itertools.cycle(requests), 0
    end = time.perf_counter() + seconds

    async def go(client: Client) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            head = await client.ask(next(turn))
            assert head.startswith(b"HTTP/1.1 " + status), head
            answered += 1

    began = time.perf_counter()
    await asyncio.gather(*(go(client) for client in clients))
    rate = answered / (time.perf_counter() - began)
    for client in clients:
        client.transport.close()
    return rate


async def sustained(port: int, requests: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Milliseconds from when each request was due to its answer, at a fixed rate."""
    clients = await connected(port, CONNECTIONS)
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)
    took: list[float] = []

    async def go(request: bytes, due: float) -> None:
        client = await free.get()
        head = await client.ask(request)
        assert head.startswith(b"HTTP/1.1 304"), head
        free.put_nowait(client)
        took.append((time.perf_counter() - due) * 1000)

    began, running = time.perf_counter(), set()
    for number, request in zip(range(int(rate * seconds)), itertools.cycle(requests), strict=False):
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(go(request, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for client in clients:
        client.transport.close()
    took.sort()
    return {"rate": len(took) / (time.perf_counter() - began)} | {
        name: took[int(len(took) * share)] for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }


@get("/")
async def constant() -> dict[str, str]:
    return {"status": "ok"}


def serve_constant(port: int) -> None:
    """Serve the constant until killed."""
    app = Litestar([constant], openapi_config=None, logging_config=None)
    listener = listening_socket.open_socket("127.0.0.1", port, "port", {})
    uvloop.run(serving.serve(app, asyncio.Event(), listener=listener))


def tags_of(base: str, agents: Agents) -> Iterator[str]:
    """Poll as each agent, and yield the ETag of its target."""
    with httpx.Client(base_url=base) as client:
        for uuid, key in zip(*agents, strict=True):
            answer = client.get(f"/api/v1/device/{uuid}/state", headers={"X-Device-API-Key": key})
            assert answer.status_code == 200, answer.text
            yield answer.headers["etag"]


def wait_for_poll_counts(database_url: str, agents: int) -> None:
    """Wait until the application has written the first poll of every agent, which it does every 10 s."""
    with psycopg.connect(database_url, autocommit=True) as database:

        def is_written() -> bool:
            row = database.execute("SELECT count(*) FROM agent_polls WHERE fetched IS NOT NULL").fetchone()
            return row is not None and row[0] >= agents

        until(is_written, 60, "the polls of all agents are written")


def measure(options: argparse.Namespace, server: Served, other: int) -> dict[str, Any]:
    owner = server.login(None, "owner")
    agents = enlist(server, owner, options.agents)
    tags = list(tags_of(f"http://127.0.0.1:{server.http_port}", agents))
    wait_for_poll_counts(server.runtime().database_url, len(agents.uuids))
    runs: list[dict[str, float]] = []
    for _ in range(options.rounds):
        runs.append(
            {
                "constant": uvloop.run(closed_loop(other, [request("/")], b"200", options.seconds)),
                "304": uvloop.run(closed_loop(server.http_port, polls(agents, tags), b"304", options.seconds)),
                "200": uvloop.run(closed_loop(server.http_port, polls(agents, None), b"200", options.seconds)),
            }
        )
        print({name: round(value) for name, value in runs[-1].items()}, flush=True)
    shares = {name: statistics.median(run[name] / run["constant"] for run in runs) for name in ("304", "200")}
    held = uvloop.run(sustained(server.http_port, polls(agents, tags), options.rate, 3 * options.seconds))
    return {
        "agents": options.agents,
        "requests a second": {name: [round(run[name]) for run in runs] for name in runs[0]},
        "share of the constant": {name: round(share, 2) for name, share in shares.items()},
        f"{options.rate} requests a second, ms": {name: round(value, 2) for name, value in held.items()},
    }


def main() -> None:
    """Start both applications, measure them, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=1000)
    options = parser.parse_args()
    other = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve_constant, args=(other,), daemon=True)
    process.start()
    with new_data_folder() as folder:
        server = Served(folder).start()
        try:
            server.ready()
            figures = measure(options, server, other)
        finally:
            server.stop()
            process.kill()
    publish("poll", options.results, figures)


if __name__ == "__main__":
    main()
