"""Deletes old rows of every kind: events, incidents, log lines, jobs, sessions, links and others."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from iotistica.background.periodic_task import for_each
from iotistica.domain.access import passwords
from iotistica.storage.access import login_failures, one_time_links, sessions
from iotistica.storage.agents import logs
from iotistica.storage.alerts import events, incident_ends, notices, silences
from iotistica.storage.control import agent_updates, jobs, targets
from iotistica.storage.history import timeline
from iotistica.storage.postgres import Database, Tx

# How long sessions and links are kept after their end; the audit log keeps its entries.
KEPT: Final = timedelta(days=7)

Deletion = Callable[[Tx, datetime], Awaitable[object]]


async def delete_old(database: Database, now: datetime) -> None:
    """Delete the old rows of every tenant, with one transaction for each kind of row."""

    async def delete(deletion: Deletion) -> None:
        async with database.transaction() as tx:
            await deletion(tx, now)

    await for_each(DELETIONS, delete)


DELETIONS: Final[tuple[Deletion, ...]] = (
    lambda tx, now: sessions.delete_ended(tx, before=now - KEPT),
    lambda tx, now: one_time_links.delete_expired(tx, before=now - KEPT),
    lambda tx, now: login_failures.delete_old(tx, before=now - timedelta(seconds=passwords.FORGOTTEN)),
    lambda tx, now: timeline.delete_old(tx, before=now - timedelta(days=timeline.KEEP_DAYS)),
    lambda tx, now: events.delete_old(tx, before=now - timedelta(days=events.KEEP_DAYS)),
    lambda tx, now: notices.delete_old(tx, before=now - timedelta(days=notices.KEEP_DAYS)),
    lambda tx, now: incident_ends.delete_old(tx, before=now - timedelta(days=incident_ends.KEEP_DAYS)),
    lambda tx, now: silences.delete_old(tx, before=now - timedelta(days=incident_ends.KEEP_DAYS)),
    logs.delete_expired,
    lambda tx, now: jobs.delete_old(tx, before=now - timedelta(days=jobs.KEEP_DAYS)),
    lambda tx, now: agent_updates.delete_old(tx),
    lambda tx, now: targets.delete_old_versions(tx),
)
