"""A year of readings, one a minute and series, written with SQL and rolled up by the application."""

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from iotistica.domain.ids import TenantId
from tests.serving import Served

TENANT = "bench"

FILL = """
INSERT INTO readings (time, agent_uuid, metric_name, value, quality, unit, protocol)
SELECT t, a, 'plc.metric' || m, 20 + 5 * sin(extract(epoch FROM t) / 5000 + m) + random(), 'good', 'C', 'modbus'
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 minute', '1 minute') t,
     unnest(%(agents)s::uuid[]) a, generate_series(1, %(series)s) m
"""
SERIES = """
INSERT INTO series (agent_uuid, metric_name, tenant_id, metric, device_name, unit, protocol)
SELECT a, 'plc.metric' || m, %(tenant)s, 'metric' || m, 'plc', 'C', 'modbus'
FROM unnest(%(agents)s::uuid[]) a, generate_series(1, %(series)s) m ON CONFLICT DO NOTHING
"""


class Year(NamedTuple):
    tenant: TenantId
    agents: list[UUID]
    end: datetime


def load(server: Served, owner: str, days: int, agents: int, series: int) -> Year:
    """Write the readings, and have the rollups begin at the first of them."""
    tenant = TenantId(server.add_tenant(TENANT))
    uuids = [UUID(server.add_agent(TENANT)["uuid"]) for _ in range(agents)]
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    start = end.replace(hour=0, minute=0) - timedelta(days=days)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(SERIES, {"tenant": tenant, "agents": uuids, "series": series})
        day = start
        while day < end:
            until = min(day + timedelta(days=1), end)
            name = {"first": day.date(), "next": day.date() + timedelta(days=1)}
            connection.execute("SELECT make_partition('readings', %(first)s, %(next)s)", name)
            connection.execute(FILL, {"start": day, "end": until, "agents": uuids, "series": series})
            day = until
        connection.execute("UPDATE rollup_progress SET rolled_until = %(start)s", {"start": start})
    return Year(tenant, uuids, end)


def stored_year(owner: str) -> Year | None:
    """Return the year that an earlier run stored, or None."""
    with psycopg.connect(owner) as connection:
        row = connection.execute(
            "SELECT t.tenant_id, array_agg(a.agent_uuid) FROM tenants t JOIN agents a USING (tenant_id)"
            f" WHERE t.name = '{TENANT}' GROUP BY 1"
        ).fetchone()
        if row is None:
            return None
        last = connection.execute(
            "SELECT max(time) FROM readings WHERE agent_uuid = %s AND metric_name = 'plc.metric1'", (row[1][0],)
        ).fetchone()
    return Year(TenantId(row[0]), row[1], last[0] + timedelta(minutes=1)) if last else None


def roll_up(owner: str, *, anew: bool) -> float:
    """Wait until all is rolled up; seconds."""
    began = time.monotonic()
    with psycopg.connect(owner, autocommit=True) as connection:
        while True:
            left = connection.execute("SELECT closed_until - rolled_until FROM rollup_progress").fetchone()
            if left and left[0] <= timedelta(minutes=2):
                break
            time.sleep(1)
        seconds = time.monotonic() - began
        if not anew:
            return seconds
        connection.execute("VACUUM (ANALYZE) readings_1m, readings_1h, readings_daily")
        connection.execute("ANALYZE readings")
    return seconds


SIZES = """
SELECT p.name, sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint, sum(c.reltuples)::bigint
FROM (VALUES ('readings'), ('readings_1m'), ('readings_1h'), ('readings_daily')) p (name),
     LATERAL (SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = p.name::regclass
              UNION ALL SELECT p.name::regclass) i JOIN pg_class c ON c.oid = i.oid AND c.relkind = 'r'
GROUP BY 1 ORDER BY 1
"""
