"""Records on each agent's timeline which of its messages became dead letters."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from iotistica.background.periodic_task import for_each
from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dead_letters
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent, hourly_key
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

MOST: Final = 200  # dead letters of a tenant recorded in one run; each can hold a megabyte


async def record(redis: Redis, database: Database, tenants: Sequence[TenantId]) -> None:
    """Record the dead letters since the last run: one timeline event for each agent, reason and hour."""

    async def record_of(tenant: TenantId) -> None:
        async with database.transaction() as tx:
            after = await timeline.dead_letter_cursor(tx, tenant)
            page = await dead_letters.page(redis, tenant, after=after, limit=MOST)
            if not page.letters:
                return
            events = [
                TimelineEvent(
                    agent=UUID(letter.agent),
                    at=letter.at,
                    kind=timeline.MESSAGE_REFUSED,
                    details=dead_letters.letter_details(letter),
                    dedupe_key=hourly_key(letter.reason, letter.at),
                )
                for letter in page.letters
                if letter.agent is not None
            ]
            await timeline.add(tx, tenant, events)
            await timeline.save_dead_letter_cursor(tx, tenant, page.letters[-1].id)

    await for_each(tenants, record_of)
