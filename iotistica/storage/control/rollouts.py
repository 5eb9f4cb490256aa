"""Statements for rollouts: active jobs, their counts, the release of agents, and notices to them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec

from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.jobs import Phase
from iotistica.domain.control.rollouts import JobCounts, Pace, RolloutPolicy, RolloutStep
from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.control import agent_jobs
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

AGENTS_LIMIT: Final = 500  # agents released in one transaction


class ActiveJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has not ended for every agent."""

    job_id: UUID
    tenant_id: TenantId
    job_name: str
    status: Phase
    policy: RolloutPolicy
    credit: float
    paced_at: datetime | None
    counts: JobCounts
    reason: str | None
    now: datetime


ACTIVE_JOBS: Final = """
SELECT job_id, tenant_id FROM job_executions
WHERE NOT is_settled AND (status <> 'QUEUED' OR scheduled_at IS NULL OR scheduled_at <= now())
ORDER BY queued_at LIMIT %(most)s
"""


async def active_jobs(tx: Tx, *, most: int) -> list[tuple[UUID, TenantId]]:
    """Return the ids and tenants of the jobs that have started and are not settled, oldest first."""
    cursor = await tx.execute(ACTIVE_JOBS, {"most": most})
    return [(row[0], row[1]) for row in await cursor.fetchall()]


LOCK: Final = """
SELECT job_id, tenant_id, job_name, status, policy, credit, paced_at, counts, reason, now() AS now
FROM job_executions
WHERE job_id = %(job)s AND NOT is_settled FOR UPDATE SKIP LOCKED
"""


async def lock(tx: Tx, job: UUID) -> ActiveJob | None:
    """Lock a job until the commit; None if it is settled or another transaction has locked it."""
    return await fetch_row(tx, ActiveJob, LOCK, {"job": job})


COUNT: Final = """
SELECT count(*) FILTER (WHERE status = 'QUEUED' AND released_at IS NULL) AS waiting,
       count(*) FILTER (WHERE status = 'QUEUED' AND released_at IS NOT NULL) AS queued,
       count(*) FILTER (WHERE status = 'IN_PROGRESS') AS in_progress,
       count(*) FILTER (WHERE status = 'SUCCEEDED') AS succeeded,
       count(*) FILTER (WHERE status IN ('FAILED', 'REJECTED')) AS failed,
       count(*) FILTER (WHERE status = 'TIMED_OUT') AS timed_out,
       count(*) FILTER (WHERE status = 'CANCELED') AS canceled,
       count(*) FILTER (WHERE is_canary AND status <> 'CANCELED') AS canaries,
       count(*) FILTER (WHERE is_canary AND status = 'QUEUED' AND released_at IS NULL) AS canaries_waiting,
       count(*) FILTER (WHERE is_canary AND status = 'SUCCEEDED') AS canaries_succeeded,
       count(*) FILTER (WHERE is_canary AND status IN ('FAILED', 'REJECTED', 'TIMED_OUT')) AS canaries_lost
FROM agent_job_status WHERE tenant_id = %(tenant)s AND job_id = %(job)s
"""


async def count(tx: Tx, job: ActiveJob) -> JobCounts:
    """Count the agents of a job by status."""
    return await fetch_row(tx, JobCounts, COUNT, {"tenant": job.tenant_id, "job": job.job_id}) or JobCounts()


_NEXT: Final[dict[bool, LiteralString]] = {
    True: "JOIN agent_presence p ON p.agent_uuid = s.agent_uuid AND p.status = 'online'",
    False: "",
}
"""The join for a release by whether only online agents are released."""
RELEASE: Final = """
UPDATE agent_job_status s SET released_at = now(), last_updated_at = now()
WHERE s.tenant_id = %(tenant)s AND s.job_id = %(job)s AND s.agent_uuid = ANY(ARRAY(
    SELECT s.agent_uuid FROM agent_job_status s ONLINE
    WHERE s.job_id = %(job)s AND s.status = 'QUEUED' AND s.released_at IS NULL AND (s.is_canary OR NOT %(canaries)s)
    ORDER BY s.position LIMIT %(most)s)) RETURNING s.agent_uuid
"""
# Agents that were deactivated or retired since the job was created.
INACTIVE: Final = """
SELECT agent_uuid FROM agents
WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s) AND NOT (active AND state = 'active')
"""


async def release(tx: Tx, job: ActiveJob, counts: JobCounts, most: int) -> list[AgentId]:
    """Release at most `most` more agents and return them; online agents first, if the policy says so."""
    if not most:
        return []
    parameters: dict[str, Any] = {
        "tenant": job.tenant_id,
        "job": job.job_id,
        "canaries": bool(counts.canaries_waiting),
    }
    released: list[AgentId] = []
    for online in (True, False) if job.policy.rollout.online_first else (False,):
        if len(released) < most:
            statement = RELEASE.replace("ONLINE", _NEXT[online])
            cursor = await tx.execute(statement, parameters | {"most": most - len(released)})
            released += [row[0] for row in await cursor.fetchall()]
    cursor = await tx.execute(INACTIVE, {"tenant": job.tenant_id, "agents": released})
    inactive = {row[0] for row in await cursor.fetchall()}
    if inactive:
        await agent_jobs.cancel(
            tx, job.tenant_id, job=job.job_id, agents=[*inactive], force=False, reason="the agent is not active"
        )
    return [agent for agent in released if agent not in inactive]


SAVE_PROGRESS: Final = """
UPDATE job_executions
SET status = %(status)s, reason = coalesce(%(reason)s, reason), credit = %(credit)s, paced_at = %(paced_at)s,
    counts = %(counts)s::jsonb, started_at = coalesce(started_at, now()),
    completed_at = CASE WHEN %(ended)s THEN coalesce(completed_at, now()) END, is_settled = %(settled)s
WHERE tenant_id = %(tenant)s AND job_id = %(job)s
"""


async def cancel_queued(tx: Tx, job: ActiveJob, reason: str) -> None:
    """Cancel a job for the agents that have not started it."""
    await agent_jobs.cancel(tx, job.tenant_id, job=job.job_id, force=False, reason=f"the job was stopped: {reason}")


async def save_progress(tx: Tx, job: ActiveJob, counts: JobCounts, status: Phase, step: RolloutStep) -> None:
    """Store the counts, status and pace of a job after a step."""
    facts: dict[str, Any] = {"tenant": job.tenant_id, "job": job.job_id, "status": status, "reason": step.abort}
    facts |= {
        "settled": not counts.open,
        "credit": step.pace.credit,
        "paced_at": step.pace.at,
        "counts": jsonb(counts),
    }
    await tx.execute(SAVE_PROGRESS, facts | {"ended": transitions.is_complete(status, counts)})


def pace_of(job: ActiveJob) -> Pace:
    """Return the stored pace of a job, or the pace of a job that is just starting."""
    return Pace(job.credit, job.paced_at or job.now)


class JobNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that tells an agent about a job."""

    job_id: UUID
    tenant_id: TenantId
    agent_uuid: AgentId
    job_document: dict[str, Any]
    queued_at: datetime
    last_updated_at: datetime
    execution_number: int
    until: datetime
    """The time at which the job times out if the agent has not started it."""


_NOTICE: Final = """
UPDATE agent_job_status s SET notified_at = now()
FROM job_executions e
WHERE e.job_id = s.job_id AND (s.job_id, s.agent_uuid) IN (SELECT job_id, agent_uuid FROM due)
RETURNING s.job_id, s.tenant_id, s.agent_uuid, e.job_document, s.queued_at, s.last_updated_at, s.execution_number,
          now() + make_interval(mins => e.start_timeout_minutes) AS until
"""
DUE_NOTICES: Final = f"""
WITH due AS (
    SELECT q.job_id, q.agent_uuid FROM agent_job_status q JOIN job_executions x USING (job_id)
    WHERE q.status = 'QUEUED' AND q.released_at <= now() AND q.notified_at IS NULL AND x.status = 'IN_PROGRESS'
      AND x.tenant_id <> ALL(%(exclude)s)
    ORDER BY q.released_at LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED)
{_NOTICE}
"""
# A notice to an offline agent may be lost.
NOTICES_AFTER_RETURN: Final = f"""
WITH due AS (
    SELECT q.job_id, q.agent_uuid FROM agent_job_status q JOIN job_executions x USING (job_id)
    JOIN agent_presence p ON p.agent_uuid = q.agent_uuid
    WHERE q.status = 'QUEUED' AND q.notified_at IS NOT NULL AND x.status = 'IN_PROGRESS'
      AND p.status = 'online' AND p.since > q.notified_at AND x.tenant_id <> ALL(%(exclude)s)
    LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED)
{_NOTICE}
"""


async def due_notices(
    tx: Tx, *, most: int, after_return: bool, exclude: Sequence[TenantId] = ()
) -> list[JobNotice]:
    """Return the due notices and mark them as sent; tenants in `exclude` are left out.

    With `after_return`, they are the notices to repeat to agents that are online again; otherwise new ones.
    """
    statement = NOTICES_AFTER_RETURN if after_return else DUE_NOTICES
    return await fetch_rows(tx, JobNotice, statement, {"most": most, "exclude": list(exclude)})


NOTICE_LIFETIME: Final = timedelta(days=1)
"""How long a notice is kept for an unavailable broker; an agent that comes back is notified again."""
