"""Search of agents by name, fleet, tags and presence, page by page."""

from datetime import datetime
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

import msgspec

from iotistica.domain.agents.status_changes import Status
from iotistica.domain.agents.tag_selectors import Selector
from iotistica.domain.ids import TenantId
from iotistica.storage.agents.agents import COLUMNS, Agent
from iotistica.storage.postgres import Page, Tx, fetch_row, fetch_rows


class AgentSummary(Agent, frozen=True, kw_only=True):
    """An agent with its presence and tags."""

    status: Status | None
    since: datetime | None
    flapping: bool
    last_seen: datetime | None
    """When the agent last sent data."""
    tags: dict[str, str]
    faults: int
    """How many of its devices and services the agent reports as failing."""


class FoundAgent(AgentSummary, frozen=True, kw_only=True):
    """An agent of a sorted list; `sort_key` is the text of what the list is sorted by."""

    sort_key: str


class AgentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which agents match; None is any. `text` is a part of the name or the start of the uuid, ignoring case."""

    text: str | None = None
    fleet: UUID | None = None
    no_fleet: bool = False
    status: tuple[str, ...] | None = None
    """`new` matches agents from which the platform has never received anything."""
    state: str | None = None
    active: bool | None = None
    version: str | None = None
    failing: bool | None = None
    """Whether the agent reports a device or a service as failing."""
    selector: Selector = ()


SortKey = Literal["id", "name", "last_seen", "status", "fleet"]
Order = Literal["asc", "desc"]

_SUMMARY: Final = f"""
SELECT {COLUMNS}, p.status, p.since, coalesce(p.flapping, false) AS flapping,
       greatest(p.data_at, s.reported_at) AS last_seen, coalesce(s.faults, 0) AS faults,
       coalesce((SELECT jsonb_object_agg(key, value) FROM agent_tags t WHERE t.agent_uuid = a.agent_uuid), '{{}}')
           AS tags
FROM agents a LEFT JOIN agent_presence p USING (agent_uuid) LEFT JOIN agent_states s USING (agent_uuid)
"""
GET: Final = _SUMMARY + "WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s"
# Presence, state and tags are joined to the agents of the page only. The text is compared last: rows that the role
# of the API cannot see must be filtered out before such comparisons.
MATCHING: Final = """
WHERE a.tenant_id = %(tenant)s
  AND (%(fleet)s::uuid IS NULL OR a.fleet_uuid = %(fleet)s) AND (NOT %(no_fleet)s OR a.fleet_uuid IS NULL)
  AND (%(state)s::text IS NULL OR a.state = %(state)s) AND (%(active)s::bool IS NULL OR a.active = %(active)s)
  AND (%(version)s::text IS NULL OR a.agent_version = %(version)s)
  AND (%(text)s::text IS NULL OR position(lower(%(text)s) IN lower(a.name)) > 0
       OR starts_with(a.agent_uuid::text, lower(%(text)s)))
"""
_STATUS: Final[dict[bool, LiteralString]] = {
    True: "AND EXISTS (SELECT FROM agent_presence p WHERE p.tenant_id = %(tenant)s"
    " AND p.agent_uuid = a.agent_uuid AND p.status = ANY(%(status)s))",
    False: "AND NOT EXISTS (SELECT FROM agent_presence p WHERE p.tenant_id = %(tenant)s"
    " AND p.agent_uuid = a.agent_uuid AND p.status <> ALL(%(status)s))",
}
"""By whether agents without a presence row (`new`) are excluded."""
_FAILING: Final[dict[bool, LiteralString]] = {
    True: "AND a.state <> 'retired' AND EXISTS (SELECT FROM agent_states s WHERE s.tenant_id = %(tenant)s"
    " AND s.agent_uuid = a.agent_uuid AND s.faults > 0)",
    False: "AND NOT EXISTS (SELECT FROM agent_states s WHERE s.tenant_id = %(tenant)s"
    " AND s.agent_uuid = a.agent_uuid AND s.faults > 0)",
}
_JOINED: Final = """
FROM agents a LEFT JOIN agent_presence p USING (agent_uuid) LEFT JOIN agent_states s USING (agent_uuid)
LEFT JOIN fleets f ON f.fleet_uuid = a.fleet_uuid AND f.tenant_id = a.tenant_id
"""
_SORTED: Final[dict[SortKey, tuple[LiteralString, LiteralString, LiteralString]]] = {
    "id": ("FROM agents a", "''", "text"),
    "name": ("FROM agents a", "a.name", "text"),
    "last_seen": (_JOINED, "coalesce(greatest(p.data_at, s.reported_at), '-infinity')", "timestamptz"),
    "status": (_JOINED, "coalesce(p.status, 'new')", "text"),
    "fleet": (_JOINED, "coalesce(f.name, '')", "text"),
}
"""The tables, the expression and its type by which a list is sorted; agents that are alike are sorted by id."""
_DIRECTION: Final[dict[Order, tuple[LiteralString, LiteralString]]] = {"asc": (">", "ASC"), "desc": ("<", "DESC")}
_TAG_CONDITION: Final[dict[tuple[bool, bool], LiteralString]] = {
    (False, False): "AND EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s)",
    (True, False): "AND EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s AND t.value = ANY(%(VALUES)s))",
    (False, True): "AND NOT EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s)",
    (True, True): "AND NOT EXISTS (SELECT FROM agent_tags t WHERE t.tenant_id = %(tenant)s"
    " AND t.agent_uuid = a.agent_uuid AND t.key = %(KEY)s AND t.value = ANY(%(VALUES)s))",
}
"""By whether the selector has values, and whether it is negated."""


def _matching(tenant: TenantId, search: AgentFilter) -> tuple[LiteralString, dict[str, Any]]:
    """Return the SQL conditions of a filter, and their parameters."""
    text: LiteralString = MATCHING
    parameters = _parameters(tenant, search)
    if search.status:
        text += _STATUS["new" not in search.status]
    if search.failing is not None:
        text += _FAILING[search.failing]
    for number, term in enumerate(search.selector):
        key, values = f"key{number}", f"values{number}"
        condition = _TAG_CONDITION[bool(term.values), term.negated]
        text += " " + condition.replace("KEY", key).replace("VALUES", values)
        parameters |= {key: term.key, values: list(term.values)}
    return text, parameters


def _parameters(tenant: TenantId, search: AgentFilter) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "fleet": search.fleet,
        "no_fleet": search.no_fleet,
        "status": list(search.status) if search.status else None,
        "state": search.state,
        "active": search.active,
        "version": search.version,
        "text": search.text or None,  # folded by PostgreSQL on both sides, which may know ASCII alone
    }


async def page(
    tx: Tx,
    tenant: TenantId,
    search: AgentFilter,
    *,
    limit: int,
    sort: SortKey = "id",
    order: Order = "asc",
    after: tuple[str, UUID] | None = None,
    offset: int = 0,
) -> Page[FoundAgent]:
    """Return a page of at most `limit` agents, and how many there are on all pages.

    The page begins after the sort key and id in `after`, or skips `offset` agents.
    """
    matching, parameters = _matching(tenant, search)
    tables, key, kind = _SORTED[sort]
    beyond, direction = _DIRECTION[order]
    after_key, id_ = after or (None, None)
    parameters |= {"after_key": after_key, "after": id_, "limit": limit, "offset": offset}
    found: LiteralString = (
        "WITH found AS MATERIALIZED (SELECT a.agent_uuid, " + key + " AS sort_key " + tables + matching
    )
    rest: LiteralString = (
        " AND (%(after)s::uuid IS NULL OR (" + key + ", a.agent_uuid) " + beyond + " (%(after_key)s::" + kind
    )
    by: LiteralString = ", %(after)s)) ORDER BY sort_key " + direction + ", a.agent_uuid " + direction
    head: LiteralString = (
        by + " LIMIT %(limit)s OFFSET %(offset)s)" + _SUMMARY.replace("SELECT ", "SELECT found.sort_key::text, ", 1)
    )
    tail: LiteralString = "JOIN found USING (agent_uuid) ORDER BY found.sort_key " + direction
    last: LiteralString = ", a.agent_uuid " + direction
    rows = Page(await fetch_rows(tx, FoundAgent, found + rest + head + tail + last, parameters, prepare=False))
    is_whole = len(rows) < limit and after is None and not offset
    rows.total = len(rows) if is_whole else await count(tx, tenant, search)
    return rows


async def count(tx: Tx, tenant: TenantId, search: AgentFilter) -> int:
    """Return the number of agents that match."""
    matching, parameters = _matching(tenant, search)
    head: LiteralString = "SELECT count(*) FROM agents a"
    cursor = await tx.execute(head + matching, parameters, prepare=False)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def ids(tx: Tx, tenant: TenantId, search: AgentFilter, *, most: int) -> list[UUID]:
    """Return the ids of at most `most` agents that match, ordered by id."""
    matching, parameters = _matching(tenant, search)
    head: LiteralString = "SELECT a.agent_uuid FROM agents a"
    tail: LiteralString = " ORDER BY a.agent_uuid LIMIT %(most)s"
    cursor = await tx.execute(head + matching + tail, parameters | {"most": most}, prepare=False)
    return [row[0] for row in await cursor.fetchall()]


async def get(tx: Tx, tenant: TenantId, agent: UUID) -> AgentSummary | None:
    """Return one agent of a tenant; None if the tenant has no such agent."""
    return await fetch_row(tx, AgentSummary, GET, {"tenant": tenant, "agent": agent})
