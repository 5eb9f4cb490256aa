"""What was stored of agents that somebody watches, as it is told to those who do."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from iotistica.domain.agents.log_lines import LEVELS, Batch, Line
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.ingest import batch as stored
from iotistica.storage.delivery import live
from iotistica.storage.delivery.live import News, Watched
from iotistica.storage.redis import Redis

MOST: Final = 500  # readings, or lines, of an agent in one message; the newest


async def share(redis: Redis, watched: Watched, batch: "stored.Batch") -> None:
    """Tell what readings were stored of agents that are watched."""
    news = []
    for agent, rows in batch.rows.items():
        tenant = batch.counts[agent].tenant
        if rows and agent in await watched.of(tenant):
            newest = sorted(rows.values(), key=lambda reading: reading.time)[-MOST:]
            content = {"agentUuid": agent, "readings": [_reading(one) for one in newest], "count": len(rows)}
            news.append(News(tenant, agent, "readings", content))
    await live.publish(redis, news)


def logs(watched: Collection[UUID], tenant: TenantId, batches: Iterable[tuple[UUID, Batch]]) -> list[News]:
    """What lines were stored of agents that are watched."""
    lines: dict[UUID, list[Line]] = {}
    for agent, batch in batches:
        if agent in watched:
            lines.setdefault(agent, []).extend(batch.lines)
    return [
        News(tenant, agent, "logs", {"agentUuid": agent, "logs": [_line(line) for line in found[-MOST:]]})
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


def _line(line: Line) -> dict[str, Any]:
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
