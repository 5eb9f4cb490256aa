"""Message numbers of agents: appended when the messages are stored, joined to runs later."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.delivery.message_gaps import Gap, MessageNumber, Run, gaps, join_runs
from iotistica.domain.ids import TenantId
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Tx, fetch_rows

RUNS_LIMIT: Final = 1000  # of an agent; the oldest are deleted first
AGENTS_LIMIT: Final = 500  # agents whose numbers are joined in one transaction
TIMELINE_LIMIT: Final = 20  # gaps of an agent that one call adds to its timeline, per kind of event

ADD: Final = """
INSERT INTO sequence_marks (tenant_id, agent_uuid, ms, number)
SELECT * FROM unnest(%(tenants)s::text[], %(agents)s::uuid[], %(ms)s::bigint[], %(numbers)s::bigint[])
"""


async def add_numbers(tx: Tx, numbers: Sequence[tuple[TenantId, UUID, MessageNumber]]) -> None:
    """Append the numbers of messages that are stored in this transaction."""
    await tx.execute(
        ADD,
        {
            "tenants": [tenant for tenant, _, _ in numbers],
            "agents": [agent for _, agent, _ in numbers],
            "ms": [number.ms for _, _, number in numbers],
            "numbers": [number.number for _, _, number in numbers],
        },
    )


class _RunRow(msgspec.Struct, frozen=True):
    first_ms: int
    last_ms: int
    first: int
    last: int


RUNS_OF_AGENT: Final = """
SELECT first_ms, last_ms, first, last FROM sequence_runs
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
UNION ALL
SELECT ms, ms, number, number FROM sequence_marks WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def runs(tx: Tx, tenant: TenantId, agent: UUID) -> list[Run]:
    """Return an agent's messages in time order, as runs without a gap."""
    rows = await fetch_rows(tx, _RunRow, RUNS_OF_AGENT, {"tenant": tenant, "agent": agent})
    return join_runs((Run(row.first_ms, row.last_ms, row.first, row.last) for row in rows), ())


class _StoredNumbers(msgspec.Struct, frozen=True):
    tenant_id: TenantId
    agent_uuid: UUID
    ms: list[int]
    numbers: list[int]


TAKE: Final = """
WITH chosen AS (
    SELECT DISTINCT agent_uuid FROM sequence_marks WHERE at < %(before)s LIMIT %(agents)s
), taken AS (
    DELETE FROM sequence_marks m USING chosen WHERE m.agent_uuid = chosen.agent_uuid AND m.at < %(before)s
    RETURNING m.tenant_id, m.agent_uuid, m.ms, m.number
)
SELECT tenant_id, agent_uuid, array_agg(ms ORDER BY ms, number) AS ms,
       array_agg(number ORDER BY ms, number) AS numbers
FROM taken GROUP BY tenant_id, agent_uuid ORDER BY agent_uuid
"""
CLEAR: Final = "DELETE FROM sequence_runs WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s"
PUT: Final = """
INSERT INTO sequence_runs (tenant_id, agent_uuid, first_ms, last_ms, first, last)
SELECT %(tenant)s, %(agent)s, *
FROM unnest(%(first_ms)s::bigint[], %(last_ms)s::bigint[], %(first)s::bigint[], %(last)s::bigint[])
ON CONFLICT DO NOTHING
"""


async def merge_runs(tx: Tx, *, before: datetime, oldest: datetime) -> int:
    """Join numbers stored before `before` to runs and delete runs older than `oldest`; return the number of agents.

    Gaps that appeared or were filled are added to the agents' timelines.
    """
    rows = await fetch_rows(tx, _StoredNumbers, TAKE, {"before": before, "agents": AGENTS_LIMIT})
    for row in rows:
        known = await runs(tx, row.tenant_id, row.agent_uuid)
        new = join_runs(known, map(MessageNumber, row.ms, row.numbers))
        await timeline.add(tx, row.tenant_id, _timeline_events(row.agent_uuid, gaps(known), gaps(new)))
        kept = [run for run in new if run.last_ms >= oldest.timestamp() * 1000][-RUNS_LIMIT:]
        owner = {"tenant": row.tenant_id, "agent": row.agent_uuid}
        await tx.execute(CLEAR, owner)
        columns = {name: [getattr(run, name) for run in kept] for name in Run._fields}
        await tx.execute(PUT, owner | columns)
    return len(rows)


def _timeline_events(agent: UUID, known: Sequence[Gap], new: Sequence[Gap]) -> list[TimelineEvent]:
    """Return events for new gaps, and for gaps that late messages have filled."""
    changed = {"messages.missing": set(new) - set(known), "messages.found": set(known) - set(new)}
    now = datetime.now(UTC)
    return [
        TimelineEvent(
            agent=agent, at=now, kind=kind, details=gap._asdict(), dedupe_key=f"{gap.first}-{gap.last} {gap.after}"
        )
        for kind, changed_gaps in changed.items()
        for gap in sorted(changed_gaps)[:TIMELINE_LIMIT]
    ]
