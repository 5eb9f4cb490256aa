"""Measures what alert rules cost beside ingestion, and how soon a message follows a reading.

  .venv/bin/python -m bench.rules [--agents 1000] [--messages 30] [--rounds 3] [--learned 100] [--breaches 40]
                                  [--rate 25000] [--results FOLDER]

rules      rounds of ingestion as fast as it goes: without rules, with a threshold rule for each agent (10 series),
           and with the learned detector for the series of some agents, in turn; CPU of application and PostgreSQL
freshness  ingestion at a steady rate, and now and then a reading beyond the bound of a rule: the time until a
           webhook on this machine has the message, from the moment at which the reading was accepted
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench import generate, load
from bench.ingest import end_to_end
from bench.report import argument_parser, publish
from iotistica.embedded import data_folder
from iotistica.simulate import fleet
from iotistica.simulate.fleet import SimulatedAgent
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import readings
from iotistica.supervise import sleep
from tests.receivers import Receiver, receiver
from tests.serving import Served, new_data_folder, until

KINDS = ("none", "threshold", "anomaly")
SETTLE = 8.0  # seconds after the rules have changed, in which they are loaded and detectors learn


def cpu_seconds(root: int) -> dict[str, float]:
    """Return the CPU time of the application and of the servers that it started, those that ended included."""
    parents: dict[int, int] = {}
    times: dict[int, tuple[int, int]] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has ended
        fields = rest.split()
        parents[int(folder.name)] = int(fields[1])
        own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
        names[int(folder.name)] = name
        times[int(folder.name)] = (own, ended)
    found = {"application": 0.0, "postgres": 0.0}
    for pid, (own, ended) in times.items():
        above = pid
        while above not in (root, 0, 1):
            above = parents.get(above, 0)
        if above == root and pid == root:
            found["application"] += own
        elif above == root and names[pid] == "postgres":
            found["postgres"] += own + ended
    ticks = os.sysconf("SC_CLK_TCK")
    return {name: seconds / ticks for name, seconds in found.items()}


def add_rules(owner: httpx.Client, members: Sequence[SimulatedAgent], learned: int) -> None:
    """Add a threshold rule for each agent, and a learned one for some; all are disabled."""
    for number, member in enumerate(members):
        scope = {"agent": str(member.agent)}
        conditions: list[dict[str, Any]] = [{"kind": "threshold", "above": 1e6}]
        if number < learned:
            conditions.append({"kind": "anomaly", "score": 1})
        for condition in conditions:
            body = {
                "name": f"{condition['kind']} {number}",
                "condition": condition,
                "scope": scope,
                "enabled": False,
            }
            assert owner.post("/anomaly/rules", json=body | {"enabled": False}).status_code == 201


async def enable(database: Database, kind: str) -> None:
    """Enable the rules of one kind and disable the others."""
    async with database.transaction() as tx:
        await tx.execute(
            "UPDATE alert_rules SET is_enabled = definition->'condition'->>'kind' = %(kind)s", {"kind": kind}
        )


async def cost(
    server: Served, database: Database, members: Sequence[SimulatedAgent], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the CPU time of a reading in us, by kind of rules, application and PostgreSQL."""
    assert server.process is not None
    metrics = f"http://127.0.0.1:{server.http_port}/metrics"
    number = len(members) * options.messages * generate.SERIES
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for round_ in range(options.rounds + 1):
        for kind in KINDS:
            await enable(database, kind)
            await sleep(options.settle, asyncio.Event())
            before = cpu_seconds(server.process.pid)
            await end_to_end(database, members, server.runtime().mqtt_url, options.messages, metrics)
            await sleep(2.0, asyncio.Event())  # until the rules have judged the last readings
            after = cpu_seconds(server.process.pid)
            figures = {name: 1e6 * (after[name] - before[name]) / number for name in after}
            figures["both"] = sum(figures.values())
            print(round_ or "warm-up", kind, {name: round(us, 2) for name, us in figures.items()}, flush=True)
            rounds[kind] += [figures] if round_ else []
    found = {
        kind: {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
        for kind, rows in rounds.items()
    }
    share = options.learned * generate.SERIES / (len(members) * generate.SERIES)
    extra = [a["both"] - n["both"] for a, n in zip(rounds["anomaly"], rounds["none"], strict=True)]
    ratios = [t["both"] / n["both"] for t, n in zip(rounds["threshold"], rounds["none"], strict=True)]
    return {
        "us_a_reading": found,
        "threshold_ratio": round(statistics.median(ratios), 3),
        "us_a_learned_reading": round(statistics.median(extra) / share, 2),
    }


async def freshness(
    server: Served,
    owner: httpx.Client,
    hooks: Receiver,
    members: Sequence[SimulatedAgent],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Return the seconds from an accepted reading to the message on the webhook, at a steady rate of readings."""
    target = {"name": "hook", "perMinute": 600, "channel": {"kind": "webhook", "url": f"{hooks.url}/hook"}}
    assert owner.post("/notifications/targets", json=target).status_code == 201
    agent = str(members[0].agent)
    for number in range(options.breaches):
        scope = {"agent": agent, "series": f"breach-{number}"}
        body = {"name": f"breach {number}", "condition": {"kind": "threshold", "above": 1}, "scope": scope}
        assert owner.post("/anomaly/rules", json=body).status_code == 201
    await sleep(options.settle, asyncio.Event())
    accepted: dict[str, float] = {}
    stop = asyncio.Event()

    async def flow() -> None:
        seconds = len(members) * generate.SERIES / options.rate  # between two polls of all agents
        while not stop.is_set():
            began = time.monotonic()
            packets = generate.packets(members, generate.now(), 1)
            publishers = await load.connect(members, packets, server.runtime().mqtt_url)
            await load.publish(publishers)
            for publisher in publishers:
                publisher.close()
            await sleep(max(seconds - (time.monotonic() - began), 0), stop)

    flowing = asyncio.create_task(flow())
    async with httpx.AsyncClient(base_url=owner.base_url, headers=owner.headers) as client:
        for number in range(options.breaches):
            reading = {"metric": f"breach-{number}", "value": 2}
            answer = await client.post("/readings", params={"agent": agent}, json={"readings": [reading]})
            assert answer.status_code == 202
            accepted[f"breach {number}"] = time.time()
            await asyncio.sleep(options.pause)
    await asyncio.to_thread(until, lambda: len(hooks.received) >= options.breaches, 60)
    stop.set()
    await flowing
    took = sorted(received.at - accepted[received.body["data"]["title"]] for received in hooks.received)
    return {
        "p50": round(statistics.median(took), 2),
        "p99": round(took[min(int(len(took) * 0.99), len(took) - 1)], 2),
        "max": round(took[-1], 2),
    }


async def run(server: Served, hooks: Receiver, options: argparse.Namespace) -> dict[str, Any]:
    """Run both measurements."""
    database = Database(
        server.runtime().database_url,
        size=2,
        name="bench",
        role="iotistica_worker",
        statement_seconds=60,
        configure=readings.create_staging_table,
    )
    await database.open()
    try:
        members = await fleet.create_agents(
            database, data_folder.server_key(server.folder), "bench", options.agents
        )
        owner = await asyncio.to_thread(server.login, "bench", "owner")
        await asyncio.to_thread(add_rules, owner, members, options.learned)
        await sleep(2.0, asyncio.Event())  # until the broker has read the accounts
        costs = await cost(server, database, members, options)
        await enable(database, "none")
        fresh = await freshness(server, owner, hooks, members, options)
    finally:
        await database.close()
    return {
        "agents": options.agents,
        "learned_series": options.learned * generate.SERIES,
        **costs,
        "rate": options.rate,
        "seconds_to_the_webhook": fresh,
    }


def main() -> None:
    """Start an instance and a receiver, measure, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=30, help="per agent and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learned", type=int, default=100, help="agents whose series are learned")
    parser.add_argument("--breaches", type=int, default=40)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two breaches")
    parser.add_argument("--rate", type=int, default=25_000, help="readings a second while they happen")
    parser.add_argument("--settle", type=float, default=SETTLE, help="seconds after the rules have changed")
    options = parser.parse_args()
    limits = {"IOTISTICA_USER_LIMIT": "1000000", "IOTISTICA_WEBHOOK_ALLOW": "127.0.0.0/8"}
    with receiver() as hooks, new_data_folder() as folder:
        server = Served(folder, **limits).start()
        try:
            server.ready()
            server.command("tenants", "add", "bench")
            server.command("tenants", "quotas", "bench", "--alert-rules", "100000")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(run(server, hooks, options))
        finally:
            server.stop()
            print(server.text()[-2000:])
    publish("rules", options.results, figures)


if __name__ == "__main__":
    main()
