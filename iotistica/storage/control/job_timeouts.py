"""Times out jobs that an agent did not start or did not end in time, or queues another execution."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.job_transitions import Execution
from iotistica.domain.control.jobs import Phase, Status
from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.postgres import Tx, fetch_rows

AGENTS_LIMIT: Final = 500  # agents timed out in one transaction


class TimedOutJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that an agent did not start, or did not end, in time."""

    job_id: UUID
    tenant_id: TenantId
    agent_uuid: AgentId
    job_name: str
    status: Status
    """`QUEUED` if another execution follows."""
    was: Status
    """The status before the timeout."""


class _Overdue(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    tenant_id: TenantId
    agent_uuid: AgentId
    job_name: str
    status: Status
    phase: Phase
    execution_number: int
    retries: int
    start_timeout_minutes: int
    timeout_minutes: int


# Time in which the platform did not accept messages does not count as agents' silence.
OVERDUE: Final = """
SELECT q.job_id, q.tenant_id, q.agent_uuid, e.job_name, q.status, e.status AS phase, q.execution_number, e.retries,
       e.start_timeout_minutes, e.timeout_minutes
FROM agent_job_status q JOIN job_executions e USING (job_id),
     (SELECT since FROM presence_watch WHERE looked_at > now() - interval '30 seconds') w
WHERE q.tenant_id <> ALL(%(exclude)s) AND ((q.status = 'IN_PROGRESS'
       AND greatest(q.started_at, w.since) < now() - make_interval(mins => e.timeout_minutes))
   OR (q.status = 'QUEUED' AND e.status = 'IN_PROGRESS'
       AND greatest(q.notified_at, w.since) < now() - make_interval(mins => e.start_timeout_minutes)
       AND q.notified_at IS NOT NULL))
LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED
"""
TIME_OUT: Final = """
UPDATE agent_job_status s
SET status = n.status, reason = n.reason, last_updated_at = now(),
    execution_number = s.execution_number + n.again::int,
    started_at = CASE WHEN NOT n.again THEN s.started_at END, completed_at = CASE WHEN NOT n.again THEN now() END,
    released_at = CASE WHEN NOT n.again THEN s.released_at
                       ELSE now() + make_interval(secs => e.retry_delay_seconds) END,
    notified_at = CASE WHEN NOT n.again THEN s.notified_at END
FROM unnest(%(jobs)s::uuid[], %(tenants)s::text[], %(agents)s::uuid[], %(statuses)s::text[], %(reasons)s::text[],
            %(again)s::bool[]) AS n (job_id, tenant_id, agent_uuid, status, reason, again)
JOIN job_executions e USING (job_id)
WHERE s.job_id = n.job_id AND s.tenant_id = n.tenant_id AND s.agent_uuid = n.agent_uuid
"""


async def time_out(tx: Tx, *, exclude: Sequence[TenantId]) -> list[TimedOutJob]:
    """Time out jobs of agents that took too long, or queue the next execution if retries are left.

    Tenants in `exclude` are left out: their messages wait to be stored, so the agents may have answered.
    """
    rows = await fetch_rows(tx, _Overdue, OVERDUE, {"most": AGENTS_LIMIT, "exclude": list(exclude)})
    ended = [
        (row, status, _reason(row))
        for row in rows
        if (status := transitions.next_status(_execution(row), "TIMED_OUT")) is not None
    ]
    parameters = {
        "jobs": [row.job_id for row, _, _ in ended],
        "tenants": [row.tenant_id for row, _, _ in ended],
        "agents": [row.agent_uuid for row, _, _ in ended],
        "statuses": [status for _, status, _ in ended],
        "reasons": [reason for _, _, reason in ended],
        "again": [status == "QUEUED" for _, status, _ in ended],
    }
    if ended:
        await tx.execute(TIME_OUT, parameters)
    return [
        TimedOutJob(
            job_id=row.job_id,
            tenant_id=row.tenant_id,
            agent_uuid=row.agent_uuid,
            job_name=row.job_name,
            status=status,
            was=row.status,
        )
        for row, status, _ in ended
    ]


def _execution(row: _Overdue) -> Execution:
    return Execution(row.status, row.execution_number, row.retries, row.phase)


def _reason(row: _Overdue) -> str:
    if row.status == "QUEUED":
        return f"did not start within {row.start_timeout_minutes} minutes"
    return f"did not end within {row.timeout_minutes} minutes"
