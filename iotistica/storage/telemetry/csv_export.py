"""Export of an agent's readings as CSV, one slice of time after another."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import sql

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx

COLUMNS: Final = (
    *("time", "agent_uuid", "metric_name", "value", "quality", "unit", "protocol", "extra"),
    *("anomaly_score", "anomaly_threshold", "metric", "device_name", "device_uuid", "endpoint_uuid"),
)
HEADER: Final = (",".join(COLUMNS) + "\n").encode()

SLICE: Final = """
COPY (
    SELECT to_char(r.time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), r.agent_uuid, r.metric_name,
           r.value, r.quality, r.unit, r.protocol, nullif(r.extra, '{{}}'), r.anomaly_score, r.anomaly_threshold,
           s.metric, s.device_name, s.device_uuid, s.endpoint_uuid
    FROM agents a JOIN readings r USING (agent_uuid)
    LEFT JOIN series s ON s.agent_uuid = r.agent_uuid AND s.metric_name = r.metric_name
    WHERE a.tenant_id = {tenant} AND a.agent_uuid = {agent} AND r.time >= {start} AND r.time < {end} {only} {after}
    ORDER BY r.time, r.metric_name
) TO STDOUT (FORMAT csv)
"""


class SliceTooLargeError(Exception):
    """The slice has more bytes than allowed; request a shorter one."""


class ExportQuery(NamedTuple):
    """The readings to export: those of all series (None) or of `metrics`, after the time and name in `after`."""

    tenant: TenantId
    agent: UUID
    metrics: Sequence[str] | None
    after: tuple[datetime, str] | None


NAMES: Final = """
SELECT DISTINCT r.metric_name FROM agents a JOIN readings r USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.time >= %(start)s AND r.time < %(end)s
  AND (%(metrics)s::text[] IS NULL OR r.metric_name = ANY(%(metrics)s::text[]))
ORDER BY 1
"""


async def series_names(tx: Tx, extract: ExportQuery, start: datetime, end: datetime) -> list[str]:
    """Return the ordered names of the series with readings in [start, end), a range too short to hold many."""
    parameters = {"tenant": extract.tenant, "agent": extract.agent, "start": start, "end": end}
    metrics = extract.metrics if extract.metrics is None else list(extract.metrics)
    rows = await (await tx.execute(NAMES, parameters | {"metrics": metrics}, prepare=False)).fetchall()
    return [name for (name,) in rows]


async def read_slice(tx: Tx, extract: ExportQuery, start: datetime, end: datetime, *, most: int) -> bytes:
    """Return the rows of [start, end) ordered by time and name; raises `SliceTooLargeError` above `most` bytes."""
    only: Any = sql.SQL("")
    after: Any = sql.SQL("")
    if extract.metrics is not None:
        only = sql.SQL("AND r.metric_name = ANY({})").format(sql.Literal(list(extract.metrics)))
    if extract.after is not None:
        after = sql.SQL('AND (r.time, r.metric_name) > ({}, {} COLLATE "C")').format(
            *map(sql.Literal, extract.after)
        )
    query = sql.SQL(SLICE).format(
        tenant=sql.Literal(extract.tenant),
        agent=sql.Literal(extract.agent),
        start=sql.Literal(start),
        end=sql.Literal(end),
        only=only,
        after=after,
    )
    parts, size = [], 0
    async with tx.cursor() as cursor, cursor.copy(query) as rows:
        async for part in rows:
            size += len(part)
            if size > most:
                raise SliceTooLargeError
            parts.append(bytes(part))
    return b"".join(parts)
