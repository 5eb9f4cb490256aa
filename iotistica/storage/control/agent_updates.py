"""Stores the software updates of agents; at most one update of an agent is open, the newest."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.control.agent_updates import STARTED_TIMEOUT, Status, UpdateCommand
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row, fetch_rows


class AgentUpdate(msgspec.Struct, frozen=True, kw_only=True):
    update_id: UUID
    agent_uuid: AgentId
    version: str
    from_version: str | None
    force: bool
    scheduled_at: datetime | None
    issued_at: datetime
    expires_at: datetime
    author: dict[str, Any]
    status: Status
    reason: str | None
    changed_at: datetime


_COLUMNS: Final = """u.update_id, u.agent_uuid, u.version, u.from_version, u.force, u.scheduled_at, u.issued_at,
u.expires_at, u.author, u.status, u.reason, u.changed_at"""
SUPERSEDE: Final = """
UPDATE agent_updates SET status = 'superseded', is_open = false, changed_at = %(issued)s
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND is_open
"""
ADD: Final = f"""
INSERT INTO agent_updates AS u (update_id, tenant_id, agent_uuid, version, from_version, force, scheduled_at,
                                issued_at, expires_at, author, status, changed_at, is_open)
SELECT gen_random_uuid(), %(tenant)s, agent_uuid, %(version)s, agent_version, %(force)s, %(scheduled)s,
       %(issued)s, %(expires)s, %(author)s::jsonb, 'commanded', %(issued)s, true
FROM agents WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
RETURNING {_COLUMNS}
"""


async def add(tx: Tx, tenant: TenantId, agent: UUID, command: UpdateCommand, *, by: Actor) -> AgentUpdate:
    """Store an update command, which supersedes an open update of the agent. Raises `NotFound`."""
    parameters = {
        "tenant": tenant,
        "agent": agent,
        "version": command.version,
        "force": command.force,
        "scheduled": command.scheduled_at,
        "issued": command.issued_at,
        "expires": command.expires_at,
        "author": jsonb(by.author),
    }
    await tx.execute(SUPERSEDE, parameters)
    update = await fetch_row(tx, AgentUpdate, ADD, parameters)
    if update is None:
        raise NotFound
    after = {"version": update.version, "from": update.from_version}
    await audit.record(tx, tenant, by, "agent.update_commanded", ("agent", agent), after=after)
    return update


PAGE: Final = f"""
SELECT {_COLUMNS} FROM agent_updates u WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
  AND (%(before)s::timestamptz IS NULL OR issued_at < %(before)s)
ORDER BY issued_at DESC LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, agent: UUID, *, before: datetime | None, limit: int) -> Page[AgentUpdate]:
    """Return a page of the updates of an agent, newest first."""
    parameters = {"tenant": tenant, "agent": agent, "before": before, "limit": limit}
    return await fetch_page(tx, AgentUpdate, PAGE, parameters, cursor=("before",))


OPEN_UPDATES: Final = f"""
SELECT {_COLUMNS} FROM agent_updates u
WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s) AND is_open ORDER BY agent_uuid FOR UPDATE
"""


async def open_updates(tx: Tx, tenant: TenantId, agents: Collection[UUID]) -> dict[UUID, AgentUpdate]:
    """Return the open updates of these agents by agent, locked until the commit."""
    rows = await fetch_rows(tx, AgentUpdate, OPEN_UPDATES, {"tenant": tenant, "agents": list(agents)})
    return {row.agent_uuid: row for row in rows}


SAVE_STATUS: Final = """
UPDATE agent_updates SET status = %(status)s, reason = coalesce(%(reason)s, reason), changed_at = %(at)s,
       is_open = %(is_open)s
WHERE tenant_id = %(tenant)s AND update_id = %(id)s
"""


async def save_status(tx: Tx, tenant: TenantId, moved: AgentUpdate, *, is_open: bool) -> None:
    """Store the status, reason and time of an update; `is_open` is False for a final status."""
    parameters = {"tenant": tenant, "id": moved.update_id, "status": moved.status, "reason": moved.reason}
    await tx.execute(SAVE_STATUS, parameters | {"at": moved.changed_at, "is_open": is_open})


class EndedUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """An update that succeeded, expired or timed out."""

    agent_uuid: AgentId
    tenant_id: TenantId
    version: str
    status: Status


END_FINISHED: Final = """
UPDATE agent_updates u SET status = n.status, is_open = false, changed_at = now()
FROM (
    SELECT o.update_id,
           CASE WHEN a.agent_version = o.version AND o.from_version IS DISTINCT FROM o.version THEN 'succeeded'
                WHEN w.looked_at < now() - interval '30 seconds' OR w.since > now() - interval '5 minutes' THEN NULL
                WHEN o.status = 'started' AND o.changed_at < now() - %(longest)s THEN 'timed_out'
                WHEN o.status IN ('commanded', 'received') AND o.expires_at < now() THEN 'expired'
                WHEN o.status = 'scheduled' AND coalesce(o.scheduled_at, o.changed_at) < now() - %(late)s
                    THEN 'timed_out' END AS status
    FROM agent_updates o JOIN agents a USING (tenant_id, agent_uuid), presence_watch w WHERE o.is_open
) n
WHERE u.update_id = n.update_id AND u.is_open AND n.status IS NOT NULL
RETURNING u.agent_uuid, u.tenant_id, u.version, u.status
"""


KEEP_DAYS: Final = 365  # days that updates are kept after their end
DELETE_OLD: Final = """
DELETE FROM agent_updates WHERE update_id = ANY(ARRAY(
    SELECT update_id FROM agent_updates WHERE NOT is_open AND changed_at < now() - %(age)s LIMIT 1000))
"""


async def delete_old(tx: Tx) -> None:
    """Delete up to 1000 updates that ended more than `KEEP_DAYS` days ago."""
    await tx.execute(DELETE_OLD, {"age": timedelta(days=KEEP_DAYS)})


async def end_finished(tx: Tx) -> list[EndedUpdate]:
    """End the updates whose agent reports the new version, and those that expired or timed out.

    Updates do not expire or time out while the intake is not running, or has only just started.
    """
    return await fetch_rows(
        tx, EndedUpdate, END_FINISHED, {"longest": STARTED_TIMEOUT, "late": STARTED_TIMEOUT + timedelta(days=1)}
    )
