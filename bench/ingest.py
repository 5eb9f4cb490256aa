"""Readings a second from the broker to the committed row, as a share of what the database alone can do.

    .venv/bin/python -m bench.ingest [--agents 1000] [--messages 30] [--rounds 3] [--end-to-end-only]

Three ways, in turn, in one run, on one machine with everything on it:
  end to end   1,000 agents publish to Mosquitto; until the last row is committed
  transaction  the same transaction (series, rows, ledgers) fed with ready rows on one connection
  bare copy    ready bytes copied to the staging table and inserted, nothing else
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench import generate, load
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.delivery.envelopes import parse_readings
from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.embedded import data_folder
from iotistica.ingest.series_cache import SeriesCache
from iotistica.simulate import fleet
from iotistica.storage.delivery import ledger
from iotistica.storage.delivery.ledger import EntryOutcome
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import readings
from iotistica.storage.telemetry.readings import COPY, STORE, AgentCounts
from iotistica.supervise import sleep
from tests.serving import Served, new_data_folder

LONGEST = 120.0  # seconds a round may take
ROWS = 8000  # in a transaction of the baselines: what a worker makes of 800 messages


async def end_to_end(
    database: Database, members: Sequence[fleet.SimulatedAgent], url: str, messages: int, metrics: str
) -> float:
    """Readings a second until all are committed, as the application counts them; then the table is asked."""
    packets = generate.packets(members, generate.now(), messages)
    publishers = await load.connect(members, packets, url)
    before = await _stored(database, members[0].tenant)
    wanted = before + len(members) * messages * generate.SERIES
    async with httpx.AsyncClient() as client:
        counted = await _counted(client, metrics) - before
        began = time.perf_counter()
        publishing = asyncio.create_task(load.publish(publishers))
        while await _counted(client, metrics) - counted < wanted and time.perf_counter() - began < LONGEST:
            await asyncio.sleep(0.05)
    seconds = time.perf_counter() - began
    await publishing
    assert await _stored(database, members[0].tenant) == wanted
    for publisher in publishers:
        publisher.close()
    return (wanted - before) / seconds


async def _counted(client: httpx.AsyncClient, metrics: str) -> int:
    """Readings stored since the application started; asking the ledger so often would slow what is measured."""
    for line in (await client.get(metrics)).text.splitlines():
        if line.startswith("iotistica_readings_total") and 'outcome="stored"' in line:
            return int(float(line.rpartition(" ")[2]))
    return 0


async def _stored(database: Database, tenant: TenantId) -> int:
    async with database.transaction() as tx:
        return (await ledger.readings_balance(tx, tenant, None)).stored


async def _ready(members: Sequence[fleet.SimulatedAgent], messages: int) -> list[dict[AgentId, list[Reading]]]:
    """Rows as a worker has them, in batches of `ROWS`."""
    start = generate.now() - timedelta(minutes=30)
    batches: list[dict[AgentId, list[Reading]]] = [{}]
    size = 0
    own = [generate.payloads(start, messages, number) for number in range(len(members))]
    received = int(time.time() * 1e6)
    for poll in range(messages):
        for number, member in enumerate(members):
            found = parse_readings(
                own[number][poll], protocol="modbus", received=received, retention_us=86_400_000_000
            )
            batches[-1].setdefault(member.agent, []).extend(found.readings)
            size += len(found.readings)
            if size >= ROWS:
                batches.append({})
                size = 0
    return [batch for batch in batches if batch]


async def transaction(database: Database, members: Sequence[fleet.SimulatedAgent], messages: int) -> float:
    """Readings a second of the worker's transaction, one after another on one connection."""
    batches = await _ready(members, messages)
    tenant = members[0].tenant
    series_cache = SeriesCache()
    seconds, rows = 0.0, 0
    for number, batch in enumerate(batches):
        counts = {agent: AgentCounts(tenant, len(found)) for agent, found in batch.items()}
        began = time.perf_counter()
        async with database.transaction() as tx:
            learned, _ = await series_cache.write_new(tx, batch, dict.fromkeys(batch, tenant))
            await readings.store(tx, batch, counts)
            await ledger.record_entries(tx, [EntryOutcome(tenant, f"bench-{began}-{number}", 0, len(batch))])
        series_cache.remember(learned)
        seconds += time.perf_counter() - began
        rows += sum(map(len, batch.values()))
    return rows / seconds


async def bare_copy(database: Database, members: Sequence[fleet.SimulatedAgent], messages: int) -> float:
    """Readings a second of staged binary COPY alone."""
    insert = STORE[STORE.index("INSERT INTO readings ") : STORE.index(" RETURNING agent_uuid")]
    batches = await _ready(members, messages)
    seconds, rows = 0.0, 0
    for batch in batches:
        packed = readings._pack_rows(batch)
        began = time.perf_counter()
        async with database.transaction() as tx:
            async with tx.cursor() as cursor, cursor.copy(COPY) as copy:
                await copy.write(packed)
            await tx.execute(insert)
        seconds += time.perf_counter() - began
        rows += sum(map(len, batch.values()))
    return rows / seconds


async def run(server: Served, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and what they came to."""
    runtime, metrics = server.runtime(), f"http://127.0.0.1:{server.http_port}/metrics"
    key = data_folder.server_key(server.folder)
    database = Database(
        runtime.database_url,
        size=2,
        name="bench",
        role="iotistica_worker",
        statement_seconds=60,
        configure=readings.create_staging_table,
    )
    await database.open()
    try:
        members = await fleet.enlist(database, key, "bench", options.agents)
        others = await fleet.enlist(database, key, "ready", options.agents)
        more = await fleet.enlist(database, key, "bare", options.agents)
        assert members[0].password == mqtt_password(key, members[0].tenant, members[0].agent, 1)
        await sleep(2.0, asyncio.Event())  # the broker reads the accounts
        rounds = []
        assert server.process is not None
        for number in range(options.rounds + 1):
            before = _cpu_seconds(server.process.pid)
            figures = {
                "end_to_end": await end_to_end(database, members, runtime.mqtt_url, options.messages, metrics)
            }
            seconds = _cpu_seconds(server.process.pid) - before
            figures["cpu_us_a_reading"] = 1e6 * seconds / (len(members) * options.messages * generate.SERIES)
            if not options.end_to_end_only:
                figures["transaction"] = await transaction(database, others, options.messages)
                figures["bare_copy"] = await bare_copy(database, more, options.messages)
            print(number or "warm-up", {name: round(rate, 1) for name, rate in figures.items()}, flush=True)
            rounds += [figures] if number else []
    finally:
        await database.close()
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = int(status.split("VmHWM:")[1].split()[0]) / 1024
    median = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    shares = {}
    if not options.end_to_end_only:
        ratios = [figures["end_to_end"] / figures["transaction"] for figures in rounds]
        shares["share_of_transaction"] = statistics.median(ratios)
        shares["share_of_bare_copy"] = median["end_to_end"] / median["bare_copy"]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "agents": options.agents,
        "readings_a_round": options.agents * options.messages * generate.SERIES,
        "rounds": rounds,
        "median": median,
        **shares,
        "resident_peak_mib": resident,
    }


def _cpu_seconds(pid: int) -> float:
    """What the application itself has used, without the servers it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start an instance, measure, print and keep the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=30, help="of each agent and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end-to-end-only", action="store_true", help="leave the baselines out")
    options = parser.parse_args()
    with new_data_folder() as folder:
        server = Served(folder).start()
        try:
            server.ready()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(run(server, options))
        finally:
            server.stop()
            print(server.text()[-2000:])
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "ingest.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "rounds"}, indent=2))


if __name__ == "__main__":
    main()
