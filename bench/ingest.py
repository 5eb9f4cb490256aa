"""Measures readings per second from the broker to the committed row, as a share of what the database alone can do.

    .venv/bin/python -m bench.ingest [--agents 1000] [--messages 30] [--rounds 3] [--end-to-end-only]
                                     [--results FOLDER]

Three ways, in turn, in one run, with everything on one machine:
  end to end   1,000 agents publish to Mosquitto; until the last row is committed
  transaction  the same transaction (series, rows, ledgers) with prepared rows on one connection
  bare copy    prepared bytes copied to the staging table and inserted, nothing else

Fails if the application raises an alarm.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvloop

from bench import generate, load
from bench.report import argument_parser, publish
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.delivery.envelopes import parse_readings
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.embedded import data_folder
from iotistica.ingest.series_cache import SeriesCache
from iotistica.simulate import fleet
from iotistica.storage.access import tenants
from iotistica.storage.delivery import ledger
from iotistica.storage.delivery.ledger import EntryOutcome
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import partitions, readings
from iotistica.storage.telemetry.readings import COPY, STORE, AgentCounts
from iotistica.supervise import sleep
from tests.serving import Served, new_data_folder

LONGEST = 120.0  # seconds a round may take
ROWS = 8000  # in a transaction of the baselines: a worker's batch of 800 messages


async def end_to_end(
    database: Database, members: Sequence[fleet.SimulatedAgent], url: str, messages: int, metrics: str
) -> float:
    """Return readings per second until the application has counted all as stored; then check the ledger."""
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
    """Return the readings stored since the start; querying the ledger so often would slow the measured work."""
    for line in (await client.get(metrics)).text.splitlines():
        if line.startswith("iotistica_readings_total") and 'outcome="stored"' in line:
            return int(float(line.rpartition(" ")[2]))
    return 0


async def _stored(database: Database, tenant: TenantId) -> int:
    async with database.transaction() as tx:
        return (await ledger.readings_balance(tx, tenant, None)).stored


async def enlist_baseline(database: Database, key: bytes, tenant: str, count: int) -> list[fleet.SimulatedAgent]:
    """Create the tenant and agents of a baseline, and disable the tenant.

    The baselines write to the ledgers without the intake. The application does not check the ledgers of disabled
    tenants; it would raise the alarm `ledger_imbalance` for an enabled one.
    """
    members = await fleet.create_agents(database, key, tenant, count)
    async with database.transaction() as tx:
        await tenants.enable(tx, members[0].tenant, enabled=False, by=PLATFORM)
    return members


async def _ready(
    database: Database, members: Sequence[fleet.SimulatedAgent], messages: int
) -> list[dict[UUID, list[Reading]]]:
    """Return parsed readings in batches of `ROWS`, as a worker has them; their partitions exist."""
    start = generate.now() - timedelta(minutes=30)
    batches: list[dict[UUID, list[Reading]]] = [{}]
    size = 0
    own = [generate.payloads(start, messages, number) for number in range(len(members))]
    received = int(time.time() * 1e6)
    for poll in range(messages):
        for number, member in enumerate(members):
            parsed = parse_readings(
                own[number][poll], protocol="modbus", received=received, retention_us=86_400_000_000
            ).readings
            batches[-1].setdefault(member.agent, []).extend(parsed)
            size += len(parsed)
            if size >= ROWS:
                batches.append({})
                size = 0
    days = {partitions.day_of(row.time) for batch in batches for rows in batch.values() for row in rows}
    await partitions.create(database, days)
    return [batch for batch in batches if batch]


async def transaction(database: Database, members: Sequence[fleet.SimulatedAgent], messages: int) -> float:
    """Return readings per second of the worker's transaction, one after another on one connection."""
    batches = await _ready(database, members, messages)
    tenant = members[0].tenant
    series_cache = SeriesCache()
    seconds, rows = 0.0, 0
    for number, batch in enumerate(batches):
        counts: dict[UUID, AgentCounts] = {
            agent: AgentCounts(tenant, len(parsed)) for agent, parsed in batch.items()
        }
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
    """Return readings per second of the binary COPY to the staging table and the INSERT from it."""
    insert = STORE[STORE.index("INSERT INTO readings ") : STORE.index(" RETURNING agent_uuid")]
    batches = await _ready(database, members, messages)
    seconds, rows = 0.0, 0
    for batch in batches:
        packed = readings._pack_rows(batch)
        began = time.perf_counter()
        async with database.transaction() as tx:
            async with tx.cursor() as cursor, cursor.copy(COPY) as copy:
                await copy.write(packed)
            await tx.execute(insert, {"horizon": None})  # None: the table has no compressed chunks
        seconds += time.perf_counter() - began
        rows += sum(map(len, batch.values()))
    return rows / seconds


async def run(server: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; return the figures of each, their medians and the alarms raised at the end."""
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
        members = await fleet.create_agents(database, key, "bench", options.agents)
        ready = await enlist_baseline(database, key, "ready", options.agents)
        bare = await enlist_baseline(database, key, "bare", options.agents)
        assert members[0].password == mqtt_password(key, members[0].tenant, members[0].agent, 1)
        await sleep(2.0, asyncio.Event())  # until the broker has read the accounts
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
                figures["transaction"] = await transaction(database, ready, options.messages)
                figures["bare_copy"] = await bare_copy(database, bare, options.messages)
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
        "agents": options.agents,
        "readings_a_round": options.agents * options.messages * generate.SERIES,
        "rounds": rounds,
        "median": median,
        **shares,
        "resident_peak_mib": resident,
        "alarms": _alarms(f"http://127.0.0.1:{server.http_port}/health"),
    }


def _alarms(health: str) -> Mapping[str, str]:
    """Return the raised alarms, each with its text."""
    alarms: dict[str, str] = httpx.get(health).json().get("alarms", {})
    return alarms


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of the application, without the servers that it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start an instance, measure it, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=30, help="per agent and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end-to-end-only", action="store_true", help="do not run the baselines")
    options = parser.parse_args()
    with new_data_folder() as folder:
        server = Served(folder).start()
        try:
            server.ready()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(run(server, options))
        finally:
            server.stop()
            print(server.text()[-2000:])
    publish("ingest", options.results, figures)
    if figures["alarms"]:
        raise SystemExit("The application raised alarms; see the report.")


if __name__ == "__main__":
    main()
