"""Ends updates of agents that are done, or took too long."""

from datetime import UTC, datetime

from iotistica.storage.control import agent_updates
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database


async def end(database: Database) -> None:
    """Do it once, for every tenant."""
    async with database.transaction() as tx:
        for ended in await agent_updates.end_finished(tx):
            kind, details = f"agent.update_{ended.status}", {"version": ended.version}
            happened = TimelineEvent(agent=ended.agent_uuid, at=datetime.now(UTC), kind=kind, details=details)
            await timeline.add(tx, ended.tenant_id, [happened])
