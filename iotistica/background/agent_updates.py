"""Ends the updates of agents that have succeeded, expired or timed out."""

from datetime import UTC, datetime

from iotistica.storage.control import agent_updates
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database


async def end(database: Database) -> None:
    """End the finished updates of every tenant, and record each end on its agent's timeline."""
    async with database.transaction() as tx:
        for update in await agent_updates.end_finished(tx):
            kind, details = f"agent.update_{update.status}", {"version": update.version}
            event = TimelineEvent(agent=update.agent_uuid, at=datetime.now(UTC), kind=kind, details=details)
            await timeline.add(tx, update.tenant_id, [event])
