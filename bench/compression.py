"""Measures how many bytes a reading takes in plain partitions and in compressed chunks of TimescaleDB.

    .venv/bin/python -m bench.compression [POSTGRESQL_URL] [--days 10] [--results FOLDER]

The readings of a captured agent (four series) are repeated, shifted in time, until the days are full. They are
stored in partitions of the built-in PostgreSQL. POSTGRESQL_URL is an empty database of a server with TimescaleDB,
in which the same readings are stored and compressed; without it, only the plain partitions are measured.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import uvloop

from bench.report import argument_parser, publish
from iotistica.cli.database import opened
from iotistica.domain.delivery.envelopes import parse_readings
from iotistica.domain.ids import AgentId
from iotistica.domain.telemetry.readings import Reading
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage import schema
from iotistica.storage.access import tenants
from iotistica.storage.agents import agents
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.telemetry import disk_usage, partitions, readings
from iotistica.storage.telemetry.readings import AgentCounts
from tests.serving import served

CAPTURE = Path(__file__).parents[1] / "tests" / "captures" / "second_boot_json_telemetry.jsonl"
DAY_US = partitions.DAY_US
ROWS = 10_000


def captured() -> list[Reading]:
    """Return the readings that the captured agent sent, by time."""
    rows: list[Reading] = []
    for line in CAPTURE.read_text().splitlines():
        message = json.loads(line)
        if "/endpoints/" in message["topic"]:
            payload = bytes.fromhex(message["payload_hex"])
            rows += parse_readings(payload, protocol="x", received=2**52, retention_us=2**60).readings
    return sorted(rows, key=lambda reading: reading.time)


def repeated(capture: list[Reading], days: int) -> Iterator[list[Reading]]:
    """Yield batches of the same readings, one capture after another, until the days are full."""
    end = (1_800_000_000 * 1_000_000 // DAY_US) * DAY_US  # any day
    at = end - days * DAY_US
    span = capture[-1].time - capture[0].time + 5_000_000
    batch: list[Reading] = []
    while at < end:
        first = capture[0].time
        batch += [msgspec.structs.replace(reading, time=at + reading.time - first) for reading in capture]
        at += span
        if len(batch) >= ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


async def fill(url: str, days: int) -> tuple[int, int]:
    """Store the repeated readings; return the numbers of rows and of bytes."""
    capture, agent, rows = captured(), AgentId(uuid4()), 0
    async with opened(url, configure=readings.create_staging_table) as database:
        async with database.transaction() as tx:
            tenant = (await tenants.add(tx, f"bench {agent}", by=PLATFORM)).tenant_id
            await agents.add(tx, tenant, agent, "a", key=bytes(32), by=PLATFORM)
        for batch in repeated(capture, days):
            await partitions.create(database, {partitions.day_of(row.time) for row in batch})
            async with database.transaction() as tx:
                await SeriesCache().write_new(tx, {agent: batch}, {agent: tenant})
                rows += (await readings.store(tx, {agent: batch}, {agent: AgentCounts(tenant, len(batch))})).stored
        async with database.transaction() as tx:
            return rows, sum(day.bytes for day in (await disk_usage.measure(tx)).days)


def compress(url: str) -> int:
    """Compress every chunk; return the bytes of the readings afterwards."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('readings') c")
        row = connection.execute("SELECT hypertable_size('readings')").fetchone()
        return int(row[0]) if row else 0


def main() -> None:
    """Fill the plain partitions, and the hypertable if there is one, and publish the report."""
    parser = argument_parser(__doc__)
    parser.add_argument("url", nargs="?", metavar="POSTGRESQL_URL")
    parser.add_argument("--days", type=int, default=10)
    options = parser.parse_args()
    with served() as server:
        rows, plain = uvloop.run(fill(server.runtime().database_url, options.days))
    figures = {"days": options.days, "rows": rows, "plain_bytes_a_row": round(plain / rows, 1)}
    if options.url:
        schema.migrate(options.url)
        rows, size = uvloop.run(fill(options.url, options.days))
        figures["hypertable_bytes_a_row"] = round(size / rows, 1)
        figures["compressed_bytes_a_row"] = round(compress(options.url) / rows, 2)
    publish("compression", options.results, figures)


if __name__ == "__main__":
    main()
