"""Summary of each series of an agent in a range: count, first and last time, minimum, maximum and average."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.aggregates import AGGREGATES, finish
from iotistica.domain.telemetry.rollup_sources import SourceRange
from iotistica.domain.telemetry.time_grids import Calendar
from iotistica.storage.postgres import Tx, fetch_rows
from iotistica.storage.telemetry import aggregates

NEEDS: Final = ("n", "sum", "min", "max", "since", "until")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of one series; its times are those of the first and last usable values.

    A series without usable values in the rollups has the times of its buckets.
    """

    metric_name: str
    protocol: str
    unit: str | None
    total_readings: int
    first_reading_time: datetime
    last_reading_time: datetime
    min: float | None
    max: float | None
    avg: float | None


class _Series(msgspec.Struct, frozen=True):
    metric_name: str
    protocol: str
    unit: str | None


SERIES: Final = """
SELECT s.metric_name, s.protocol, s.unit FROM agents a JOIN series s USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND s.metric_name = ANY(%(metrics)s)
ORDER BY s.metric_name
"""


async def summarise(
    tx: Tx, tenant: TenantId, agent: UUID, metrics: Sequence[str], segments: Sequence[SourceRange]
) -> list[Summary]:
    """Return the summary of each of these series that has readings in the segments, ordered by name."""
    parameters = {"tenant": tenant, "agent": agent, "metrics": list(metrics)}
    series = await fetch_rows(tx, _Series, SERIES, parameters)
    if not series or not segments:
        return []
    keys = [(agent, row.metric_name) for row in series]
    start, end = segments[0].start, segments[-1].end
    whole_range = Calendar(start, end, [start], [start])
    totals = await aggregates.totals(tx, tenant, keys, whole_range, segments, NEEDS, limit=len(keys))
    averages = finish(AGGREGATES["avg"], totals)
    return [
        Summary(
            metric_name=series[number].metric_name,
            protocol=series[number].protocol,
            unit=series[number].unit,
            total_readings=totals["count"][at],
            first_reading_time=totals["since"][at],
            last_reading_time=totals["until"][at],
            min=totals["min"][at],
            max=totals["max"][at],
            avg=averages[at],
        )
        for at, number in enumerate(totals["number"])
    ]
