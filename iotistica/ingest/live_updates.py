"""Publishes newly stored readings and log lines of agents that a client is watching."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from iotistica.domain.agents.log_levels import LEVELS
from iotistica.domain.agents.log_lines import LogBatch, LogLine
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.ingest.batch import ReadingsBatch
from iotistica.storage.delivery import live
from iotistica.storage.delivery.live import LiveUpdate, WatchedAgents
from iotistica.storage.redis import Redis

UPDATE_LIMIT: Final = 500  # readings or log lines of an agent in one update; the newest are sent


async def publish_readings(redis: Redis, watched: WatchedAgents, batch: ReadingsBatch) -> None:
    """Publish the stored readings of watched agents."""
    updates = []
    for agent, rows in batch.rows.items():
        tenant = batch.counts[agent].tenant
        if rows and agent in await watched.of_tenant(tenant):
            newest = sorted(rows.values(), key=lambda reading: reading.time)[-UPDATE_LIMIT:]
            content = {"agentUuid": agent, "readings": [_reading(row) for row in newest], "count": len(rows)}
            updates.append(LiveUpdate(tenant, agent, "readings", content))
    await live.publish(redis, updates)


def log_updates(
    watched: Collection[UUID], tenant: TenantId, batches: Iterable[tuple[UUID, LogBatch]]
) -> list[LiveUpdate]:
    """Return one update for each watched agent, with its stored log lines."""
    lines: dict[UUID, list[LogLine]] = {}
    for agent, batch in batches:
        if agent in watched:
            lines.setdefault(agent, []).extend(batch.lines)
    return [
        LiveUpdate(
            tenant, agent, "logs", {"agentUuid": agent, "logs": [_line(line) for line in stored[-UPDATE_LIMIT:]]}
        )
        for agent, stored in lines.items()
        if stored
    ]


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "metric_name": reading.metric_name,
        "time": _time(reading.time),
        "value": reading.value,
        "quality": reading.quality,
        "unit": reading.unit,
        **({"extra": reading.extra} if reading.extra else {}),
    }


def _line(line: LogLine) -> dict[str, Any]:
    return {
        "timestamp": _time(line.time),
        "service": line.service,
        "level": LEVELS[line.level],
        "message": line.message,
        "isSystem": line.is_system,
        "isStderr": line.is_stderr,
        "meta": line.meta,
    }


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)
