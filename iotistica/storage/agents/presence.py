"""Presence of agents, derived from what the platform stored of them, never from a connection."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.agents.status_changes import Status, StatusChanges
from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

OVERLAP: Final = timedelta(seconds=60)  # a transaction commits after the timestamp that it writes
PAUSE: Final = timedelta(seconds=60)  # without a presence check counts as a pause of the platform
RECORD_INTERVAL: Final = timedelta(seconds=30)  # between two recorded activities of one agent
CHANGES_LIMIT: Final = 10_000  # status changes returned at a time


class PlatformWatch(msgspec.Struct, frozen=True, kw_only=True):
    """Since when the platform has accepted messages without a pause, and when it last checked presence."""

    now: datetime
    since: datetime
    looked_at: datetime | None


GET_WATCH: Final = """
SELECT now() AS now, since, nullif(looked_at, '-infinity') AS looked_at FROM presence_watch FOR UPDATE
"""
RECORD_WATCH: Final = "UPDATE presence_watch SET since = %(since)s, looked_at = %(now)s"


async def record_watch(tx: Tx, *, accepting: bool) -> PlatformWatch:
    """Record a presence check; return the watch with the time of the check before it.

    `since` becomes now if the platform is not `accepting` messages, or did not check for longer than `PAUSE`.
    """
    watch = await fetch_row(tx, PlatformWatch, GET_WATCH)
    assert watch is not None  # noqa: S101 the migration inserted the row
    paused = not accepting or watch.looked_at is None or watch.now - watch.looked_at > PAUSE
    since = watch.now if paused else watch.since
    await tx.execute(RECORD_WATCH, {"since": since, "now": watch.now})
    return msgspec.structs.replace(watch, since=since)


# Ledger rows are folded into the totals after a minute, so after a pause the totals are read as well.
UPDATE_FROM_ACTIVITY: Final = """
INSERT INTO agent_presence AS p (agent_uuid, tenant_id, status, since, data_at, heard_at)
SELECT agent_uuid, a.tenant_id, 'offline', now(), max(data_at), max(heard_at)
FROM (
    SELECT agent_uuid, at AS data_at, at AS heard_at FROM readings_ledger WHERE at >= %(after)s
    UNION ALL
    SELECT agent_uuid, last_at, last_at FROM readings_ledger_totals WHERE last_at >= %(after)s
    UNION ALL
    SELECT agent_uuid, reported_at, reported_at FROM agent_states WHERE stored_at >= %(after)s
    UNION ALL
    SELECT agent_uuid, NULL, polled_at FROM agent_polls WHERE polled_at >= %(after)s
) activity JOIN agents a USING (agent_uuid)
GROUP BY agent_uuid, a.tenant_id ORDER BY agent_uuid
ON CONFLICT (agent_uuid) DO UPDATE
SET data_at = greatest(p.data_at, excluded.data_at), heard_at = greatest(p.heard_at, excluded.heard_at)
WHERE (p.data_at, p.heard_at) IS DISTINCT FROM
      (greatest(p.data_at, excluded.data_at), greatest(p.heard_at, excluded.heard_at))
"""


async def update_from_activity(tx: Tx, seen: PlatformWatch) -> None:
    """Update presence from what was stored of agents since the last check, less `OVERLAP`."""
    after = seen.looked_at - OVERLAP if seen.looked_at else datetime.min.replace(tzinfo=seen.now.tzinfo)
    await tx.execute(UPDATE_FROM_ACTIVITY, {"after": after})


RECORD_ACTIVITY: Final = """
INSERT INTO agent_presence AS p (agent_uuid, tenant_id, status, since, data_at, heard_at)
SELECT agent_uuid, a.tenant_id, 'offline', now(), CASE WHEN %(data)s THEN now() END, now()
FROM agents a LEFT JOIN agent_presence o USING (tenant_id, agent_uuid)
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = ANY(%(agents)s)
  AND (o.agent_uuid IS NULL OR o.heard_at < now() - %(often)s OR (%(data)s AND o.data_at < now() - %(often)s)
       OR (%(data)s AND o.data_at IS NULL))
ORDER BY agent_uuid
ON CONFLICT (agent_uuid) DO UPDATE
SET data_at = greatest(p.data_at, excluded.data_at), heard_at = greatest(p.heard_at, excluded.heard_at)
"""


async def record_activity(tx: Tx, tenant: TenantId, agents: Collection[UUID], *, data: bool) -> None:
    """Record that agents sent messages that no other table shows; `data` if they contain more than logs.

    Each agent is written at most once in `RECORD_INTERVAL`.
    """
    if agents:
        parameters = {"tenant": tenant, "agents": sorted(agents), "data": data, "often": RECORD_INTERVAL}
        await tx.execute(RECORD_ACTIVITY, parameters)


class StatusChange(msgspec.Struct, frozen=True, kw_only=True):
    """An agent whose status changes now."""

    agent_uuid: AgentId
    tenant_id: TenantId
    old: Status
    new: Status
    since: datetime
    turns: list[datetime]
    flapping: bool
    is_first: bool


CHANGES: Final = """
SELECT * FROM (
    SELECT p.agent_uuid, p.tenant_id, p.status AS old, p.since, p.turns, p.flapping,
           p.status = 'offline' AND p.turns = '{}' AS is_first,
           CASE WHEN a.state NOT IN ('registered', 'active') THEN 'offline'
                WHEN p.data_at > %(fresh)s THEN 'online'
                WHEN greatest(p.heard_at, %(since)s) <= %(fresh)s THEN 'offline'
                WHEN p.heard_at > %(fresh)s AND greatest(p.data_at, p.since, %(since)s) <= %(quiet)s
                    THEN 'silent'
                ELSE p.status END AS new
    FROM agent_presence p JOIN agents a USING (tenant_id, agent_uuid)
) now WHERE new <> old AND (new = 'online' OR tenant_id <> ALL(%(tenants)s)) ORDER BY agent_uuid LIMIT %(most)s
"""


async def changes(
    tx: Tx, seen: PlatformWatch, silence: timedelta, lagging: Sequence[TenantId]
) -> list[StatusChange]:
    """Return the agents whose status changes, at most `CHANGES_LIMIT`.

    An agent is offline if nothing was received from it for `silence`, and the platform ran without a pause for that
    long. An agent that polls and sends no data is silent only after 1.5 times `silence`: the public agent reports
    every five minutes, give or take the minute between its own checks. For the `lagging` tenants, whose messages
    wait to be stored, only agents that are online again are returned.
    """
    parameters: dict[str, Any] = {"fresh": seen.now - silence, "quiet": seen.now - silence * 1.5}
    parameters |= {"since": seen.since, "tenants": list(lagging), "most": CHANGES_LIMIT}
    return await fetch_rows(tx, StatusChange, CHANGES, parameters)


COUNT_BY_STATUS: Final = """
SELECT coalesce(p.status, 'new') AS status, count(*)
FROM agents a LEFT JOIN agent_presence p USING (tenant_id, agent_uuid) WHERE a.state IN ('registered', 'active')
GROUP BY 1
"""


async def count_by_status(tx: Tx) -> dict[str, int]:
    """Return how many agents of all tenants have each status; `new` ones have never contacted the platform."""
    rows = await (await tx.execute(COUNT_BY_STATUS)).fetchall()
    return dict.fromkeys(("online", "silent", "offline", "new"), 0) | dict(rows)


SAVE_CHANGES: Final = """
UPDATE agent_presence p
SET status = n.status, since = %(now)s, turns = n.turns::timestamptz[], flapping = n.flapping
FROM unnest(%(agents)s::uuid[], %(statuses)s::text[], %(turns)s::text[], %(flapping)s::boolean[])
     AS n (agent_uuid, status, turns, flapping)
WHERE p.agent_uuid = n.agent_uuid
"""


async def save_changes(tx: Tx, now: datetime, turned: Sequence[tuple[StatusChange, StatusChanges]]) -> None:
    """Store the new statuses."""
    if not turned:
        return
    await tx.execute(
        SAVE_CHANGES,
        {
            "now": now,
            "agents": [change.agent_uuid for change, _ in turned],
            "statuses": [change.new for change, _ in turned],
            "turns": ["{" + ",".join(t.isoformat() for t in turns.times) + "}" for _, turns in turned],
            "flapping": [turns.flapping for _, turns in turned],
        },
    )


class SteadyAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: AgentId
    tenant_id: TenantId
    status: Status


END_FLAPPING: Final = """
UPDATE agent_presence SET flapping = false, turns = '{}'
WHERE flapping AND turns[cardinality(turns)] <= %(before)s RETURNING agent_uuid, tenant_id, status
"""


async def end_flapping(tx: Tx, *, before: datetime) -> list[SteadyAgent]:
    """End the flapping of the agents whose status has not changed since `before`; return them."""
    return await fetch_rows(tx, SteadyAgent, END_FLAPPING, {"before": before})


class SilentAgent(msgspec.Struct, frozen=True, kw_only=True):
    """A silent agent to heal: the generation of its broker account, and the number of this attempt (`heals`)."""

    agent_uuid: AgentId
    tenant_id: TenantId
    generation: int
    heals: int


# An agent that has just started can poll before it sends, hence the two minutes. The second attempt comes half an
# hour after the first, the third an hour after the second, and so on up to a day. After two days without an attempt
# the next one counts as the first again.
CLAIM_SILENT: Final = """
UPDATE agent_presence p
SET healed_at = now(), heals = CASE WHEN p.healed_at < now() - interval '2 days' THEN 1 ELSE p.heals + 1 END
FROM broker_accounts b
WHERE b.agent_uuid = p.agent_uuid AND b.enabled AND p.agent_uuid IN (
    SELECT agent_uuid FROM agent_presence q JOIN agents a USING (tenant_id, agent_uuid)
    WHERE q.status = 'silent' AND q.since < now() - interval '2 minutes' AND a.active AND a.state = 'active'
      AND (q.healed_at IS NULL
           OR q.healed_at < now() - least(interval '15 minutes' * 2 ^ least(q.heals, 7), interval '1 day'))
    ORDER BY q.since LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED)
RETURNING p.agent_uuid, p.tenant_id, b.generation, p.heals
"""


async def claim_silent(tx: Tx, *, most: int) -> list[SilentAgent]:
    """Claim at most `most` agents that poll but send nothing; the caller must heal them now."""
    return await fetch_rows(tx, SilentAgent, CLAIM_SILENT, {"most": most})


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    since: datetime
    data_at: datetime | None
    heard_at: datetime
    flapping: bool
    heals: int


GET: Final = """
SELECT status, since, data_at, heard_at, flapping, heals FROM agent_presence
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> Presence | None:
    """Return the presence of an agent; None if the platform never received anything from it."""
    return await fetch_row(tx, Presence, GET, {"tenant": tenant, "agent": agent})
