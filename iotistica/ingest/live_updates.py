"""What was stored of agents that somebody watches, as it is told to those who do."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from iotistica.domain.agents.log_lines import LEVELS, LogBatch, LogLine
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.ingest.batch import ReadingsBatch
from iotistica.storage.delivery import live
from iotistica.storage.delivery.live import LiveUpdate, WatchedAgents
from iotistica.storage.redis import Redis

UPDATE_LIMIT: Final = 500  # readings, or lines, of an agent in one message; the newest


async def publish_readings(redis: Redis, watched: WatchedAgents, batch: ReadingsBatch) -> None:
    """Tell what readings were stored of agents that are watched."""
    news = []
    for agent, rows in batch.rows.items():
        tenant = batch.counts[agent].tenant
        if rows and agent in await watched.of_tenant(tenant):
            newest = sorted(rows.values(), key=lambda reading: reading.time)[-UPDATE_LIMIT:]
            content = {"agentUuid": agent, "readings": [_reading(one) for one in newest], "count": len(rows)}
            news.append(LiveUpdate(tenant, agent, "readings", content))
    await live.publish(redis, news)


def log_updates(
    watched: Collection[UUID], tenant: TenantId, batches: Iterable[tuple[UUID, LogBatch]]
) -> list[LiveUpdate]:
    """What lines were stored of agents that are watched."""
    lines: dict[UUID, list[LogLine]] = {}
    for agent, batch in batches:
        if agent in watched:
            lines.setdefault(agent, []).extend(batch.lines)
    return [
        LiveUpdate(
            tenant, agent, "logs", {"agentUuid": agent, "logs": [_line(line) for line in found[-UPDATE_LIMIT:]]}
        )
        for agent, found in lines.items()
        if found
    ]


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "metric_name": reading.metric_name,
        "time": _time(reading.time),
        "value": reading.value,
        "quality": reading.quality,
        "unit": reading.unit,
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
