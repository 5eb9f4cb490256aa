"""Removes what nobody will ask for any more: old happenings, sessions, links and wrong passwords."""

from datetime import datetime, timedelta
from typing import Final

from iotistica.domain.access import passwords
from iotistica.storage.access import login_failures, one_time_links, sessions
from iotistica.storage.agents import logs
from iotistica.storage.control import agent_updates, jobs, targets
from iotistica.storage.history import timeline
from iotistica.storage.postgres import Database

KEPT: Final = timedelta(days=7)  # after their end; the audit has them for ever


async def remove(database: Database, now: datetime) -> None:
    """Do it once, for every tenant."""
    async with database.transaction() as tx:
        await sessions.delete_ended(tx, before=now - KEPT)
        await one_time_links.delete_expired(tx, before=now - KEPT)
        await login_failures.delete_old(tx, before=now - timedelta(seconds=passwords.FORGOTTEN))
    async with database.transaction() as tx:
        await timeline.delete_old(tx, before=now - timedelta(days=timeline.KEEP_DAYS))
    async with database.transaction() as tx:
        await logs.delete_expired(tx, now)
    async with database.transaction() as tx:
        await jobs.delete_old(tx, before=now - timedelta(days=jobs.KEEP_DAYS))
    async with database.transaction() as tx:
        await agent_updates.delete_old(tx)
        await targets.delete_old_versions(tx)
