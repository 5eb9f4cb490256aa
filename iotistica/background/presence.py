"""Updates the presence of agents, and records and publishes its changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from iotistica.domain.agents import status_changes as rules
from iotistica.domain.agents.status_changes import StatusChanges
from iotistica.domain.ids import TenantId
from iotistica.instruments import AGENTS
from iotistica.storage import lease
from iotistica.storage.agents import presence
from iotistica.storage.agents.directory import Directory
from iotistica.storage.agents.presence import StatusChange
from iotistica.storage.delivery import live, stream_stats
from iotistica.storage.delivery.live import LiveUpdate
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.redis import Redis

EVERY: Final = 5.0  # seconds between updates


async def update(redis: Redis, database: Database, directory: Directory, silence: timedelta) -> None:
    """Update the presence of every agent once; an agent without a message for `silence` is offline."""
    lagging = await stream_stats.lagging(redis, sorted(await directory.tenants()))
    await check(redis, database, lagging, silence)


async def check(redis: Redis, database: Database, lagging: Sequence[TenantId], silence: timedelta) -> None:
    """Update the presence once; agents of `lagging` tenants do not become offline. Raises `Unavailable`."""
    accepting = await lease.is_held(redis, "intake")
    async with database.transaction() as tx:
        seen = await presence.record_watch(tx, accepting=accepting)
        await presence.update_from_activity(tx, seen)
        changes = await presence.changes(tx, seen, silence, lagging)
        turned = [(c, rules.after_change(c.turns, seen.now, flapping=c.flapping)) for c in changes]
        await presence.save_changes(tx, seen.now, turned)
        await _record(tx, seen.now, turned)
        for calmed in await presence.end_flapping(tx, before=seen.now - rules.STEADY_AFTER):
            details = {"status": calmed.status}
            event = TimelineEvent(agent=calmed.agent_uuid, at=seen.now, kind="presence.steady", details=details)
            await timeline.add(tx, calmed.tenant_id, [event])
        counts = await presence.count_by_status(tx)
    for status, count in counts.items():
        AGENTS.set(count, {"presence": status})
    await live.publish(redis, [_live_update(change, seen.now) for change in changes])


async def _record(tx: Tx, now: datetime, turned: list[tuple[StatusChange, StatusChanges]]) -> None:
    """Record the changes on the timelines; of a flapping agent only that it flaps, once."""
    events: dict[TenantId, list[TimelineEvent]] = {}
    for change, turns in turned:
        if change.flapping:
            continue
        kind = "presence.flapping" if turns.flapping else f"presence.{change.new}"
        details = {"before": None if change.is_first else change.old, "since": change.since}
        event = TimelineEvent(agent=change.agent_uuid, at=now, kind=kind, details=details)
        events.setdefault(change.tenant_id, []).append(event)
    for tenant, rows in events.items():
        await timeline.add(tx, tenant, rows)


def _live_update(change: StatusChange, now: datetime) -> LiveUpdate:
    content = {"type": "presence", "agent": change.agent_uuid, "status": change.new, "at": now}
    return LiveUpdate(change.tenant_id, change.agent_uuid, "events", content)
