"""Agents found by name, fleet, tags and presence, page by page."""

from datetime import datetime
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

import msgspec

from iotistica.domain.agents.presence import Status
from iotistica.domain.agents.tag_selectors import Selector
from iotistica.domain.ids import TenantId
from iotistica.storage.agents.agents import COLUMNS, Agent
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows


class AgentSummary(Agent, frozen=True, kw_only=True):
    """An agent with what is known of its presence, and its tags."""

    status: Status | None
    since: datetime | None
    flapping: bool
    last_seen: datetime | None
    """When it last sent data."""
    tags: dict[str, str]


class AgentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; None is any. `text` is a part of the name or the beginning of the uuid, in any case."""

    text: str | None = None
    fleet: UUID | None = None
    no_fleet: bool = False
    status: tuple[str, ...] | None = None
    """`new` is one that was never heard of."""
    state: str | None = None
    active: bool | None = None
    version: str | None = None
    selector: Selector = ()


Order = Literal["id", "name"]

_SHOWN: Final = f"""
SELECT {COLUMNS}, p.status, p.since, coalesce(p.flapping, false) AS flapping,
       greatest(p.data_at, s.reported_at) AS last_seen,
       coalesce((SELECT jsonb_object_agg(key, value) FROM agent_tags t WHERE t.agent_uuid = a.agent_uuid), '{{}}')
           AS tags
FROM agents a LEFT JOIN agent_presence p USING (agent_uuid) LEFT JOIN agent_states s USING (agent_uuid)
"""
GET: Final = _SHOWN + "WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s"
# What is shown is joined to the agents of the page alone. The text is compared last: what the role of the API may
# not see is kept from such comparisons.
MATCHING: Final = """
FROM agents a
WHERE a.tenant_id = %(tenant)s
  AND (%(fleet)s::uuid IS NULL OR a.fleet_uuid = %(fleet)s) AND (NOT %(no_fleet)s OR a.fleet_uuid IS NULL)
  AND (%(state)s::text IS NULL OR a.state = %(state)s) AND (%(active)s::bool IS NULL OR a.active = %(active)s)
  AND (%(version)s::text IS NULL OR a.agent_version = %(version)s)
  AND (%(text)s::text IS NULL OR position(%(text)s IN lower(a.name)) > 0
       OR starts_with(a.agent_uuid::text, %(text)s))
"""
_STATUS: Final[dict[bool, LiteralString]] = {
    True: "AND EXISTS (SELECT FROM agent_presence p WHERE p.tenant_id = %(tenant)s"
    " AND p.agent_uuid = a.agent_uuid AND p.status = ANY(%(status)s))",
    False: "AND NOT EXISTS (SELECT FROM agent_presence p WHERE p.tenant_id = %(tenant)s"
    " AND p.agent_uuid = a.agent_uuid AND p.status <> ALL(%(status)s))",
}
"""By whether one that was never heard of is left out."""
_AFTER: Final[dict[Order, LiteralString]] = {
    "id": "AND (%(after)s::uuid IS NULL OR a.agent_uuid > %(after)s) ORDER BY a.agent_uuid",
    "name": "AND (%(after)s::uuid IS NULL OR (a.name, a.agent_uuid) > (%(after_name)s, %(after)s))"
    " ORDER BY a.name, a.agent_uuid",
}
_BY: Final[dict[Order, LiteralString]] = {"id": "a.agent_uuid", "name": "a.name, a.agent_uuid"}
_HAS: Final[dict[tuple[bool, bool], LiteralString]] = {
    (False, False): "AND EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s)",
    (True, False): "AND EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s AND t.value = ANY(%(VALUES)s))",
    (False, True): "AND NOT EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s)",
    (True, True): "AND NOT EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s AND t.value = ANY(%(VALUES)s))",
}
"""By whether values are named, and whether it is negated."""


def _matching(tenant: TenantId, search: AgentFilter) -> tuple[LiteralString, dict[str, Any]]:
    """What is asked for as conditions, and their parameters."""
    text: LiteralString = MATCHING
    parameters = _asked(tenant, search)
    if search.status:
        text += _STATUS["new" not in search.status]
    for number, term in enumerate(search.selector):
        key, values = f"key{number}", f"values{number}"
        condition = _HAS[bool(term.values), term.negated]
        text += " " + condition.replace("KEY", key).replace("VALUES", values)
        parameters |= {key: term.key, values: list(term.values)}
    return text, parameters


def _asked(tenant: TenantId, search: AgentFilter) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "fleet": search.fleet,
        "no_fleet": search.no_fleet,
        "status": list(search.status) if search.status else None,
        "state": search.state,
        "active": search.active,
        "version": search.version,
        "text": search.text.lower() if search.text else None,
    }


async def page(
    tx: Tx,
    tenant: TenantId,
    search: AgentFilter,
    *,
    limit: int,
    order: Order = "id",
    after: tuple[str, UUID] | None = None,
    offset: int = 0,
) -> list[AgentSummary]:
    """Agents in an order, `limit` after the name and id of the last one known, or after so many."""
    matching, parameters = _matching(tenant, search)
    name, id_ = after or (None, None)
    parameters |= {"after_name": name, "after": id_, "limit": limit, "offset": offset}
    found: LiteralString = "WITH found AS MATERIALIZED (SELECT a.agent_uuid" + matching + _AFTER[order]
    shown: LiteralString = " LIMIT %(limit)s OFFSET %(offset)s)" + _SHOWN
    statement: LiteralString = found + shown + "JOIN found USING (agent_uuid) ORDER BY " + _BY[order]
    return await fetch_rows(tx, AgentSummary, statement, parameters, prepare=False)


async def count(tx: Tx, tenant: TenantId, search: AgentFilter) -> int:
    """How many agents there are."""
    matching, parameters = _matching(tenant, search)
    head: LiteralString = "SELECT count(*)"
    cursor = await tx.execute(head + matching, parameters, prepare=False)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def ids(tx: Tx, tenant: TenantId, search: AgentFilter, *, most: int) -> list[UUID]:
    """The ids of the agents that are meant, in their order; at most so many."""
    matching, parameters = _matching(tenant, search)
    head: LiteralString = "SELECT a.agent_uuid"
    tail: LiteralString = " ORDER BY a.agent_uuid LIMIT %(most)s"
    cursor = await tx.execute(head + matching + tail, parameters | {"most": most}, prepare=False)
    return [row[0] for row in await cursor.fetchall()]


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> AgentSummary | None:
    """One agent of a tenant."""
    return await fetch_row(tx, AgentSummary, GET, {"tenant": tenant, "agent": agent})
