"""What moves jobs on: agents are told in turn, the silent are given up, what has ended is settled."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec

from iotistica.domain.control.jobs import Phase, Status
from iotistica.domain.control.rollouts import Counts, Pace, Policy, Step
from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.postgres import Tx, row_as, rows_as

MOST: Final = 500  # agents told, or given up, in one transaction


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has not ended for every agent."""

    job_id: UUID
    tenant_id: TenantId
    job_name: str
    status: Phase
    policy: Policy
    credit: float
    paced_at: datetime | None
    counts: Counts
    reason: str | None
    now: datetime


IDS: Final = """
SELECT job_id, tenant_id FROM job_executions
WHERE NOT is_settled AND (status <> 'QUEUED' OR scheduled_at IS NULL OR scheduled_at <= now())
ORDER BY queued_at LIMIT %(most)s
"""


async def unsettled(tx: Tx, *, most: int) -> list[tuple[UUID, TenantId]]:
    """The jobs that are under way and whose they are, the oldest first."""
    cursor = await tx.execute(IDS, {"most": most})
    return [(row[0], row[1]) for row in await cursor.fetchall()]


LOCKED: Final = """
SELECT job_id, tenant_id, job_name, status, policy, credit, paced_at, counts, reason, now() AS now
FROM job_executions
WHERE job_id = %(job)s AND NOT is_settled FOR UPDATE SKIP LOCKED
"""


async def locked(tx: Tx, job: UUID) -> Unsettled | None:
    """A job that nobody else changes before the commit; None if somebody does."""
    return await row_as(tx, Unsettled, LOCKED, {"job": job})


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


async def count(tx: Tx, job: Unsettled) -> Counts:
    """How far its agents are."""
    return await row_as(tx, Counts, COUNT, {"tenant": job.tenant_id, "job": job.job_id}) or Counts()


_NEXT: Final[dict[bool, LiteralString]] = {
    True: "JOIN agent_presence p ON p.agent_uuid = s.agent_uuid AND p.status = 'online'",
    False: "",
}
"""By whether those that are online are meant alone."""
RELEASE: Final = """
UPDATE agent_job_status s SET released_at = now(), last_updated_at = now()
WHERE s.tenant_id = %(tenant)s AND s.job_id = %(job)s AND s.agent_uuid = ANY(ARRAY(
    SELECT s.agent_uuid FROM agent_job_status s ONLINE
    WHERE s.job_id = %(job)s AND s.status = 'QUEUED' AND s.released_at IS NULL AND (s.is_canary OR NOT %(canaries)s)
    ORDER BY s.position LIMIT %(most)s)) RETURNING s.agent_uuid
"""
# One that was set aside, or retired, since the job was made.
UNFIT: Final = """
UPDATE agent_job_status s
SET status = 'CANCELED', reason = 'the agent was set aside', completed_at = now(), last_updated_at = now()
FROM agents a
WHERE a.agent_uuid = s.agent_uuid AND s.tenant_id = %(tenant)s AND s.job_id = %(job)s
  AND s.agent_uuid = ANY(%(agents)s) AND s.status = 'QUEUED'
  AND NOT (a.active AND a.state = 'active') RETURNING s.agent_uuid
"""


async def release(tx: Tx, job: Unsettled, counts: Counts, most: int) -> list[AgentId]:
    """Let so many more agents take it, those that are online first; returns which."""
    if not most:
        return []
    asked: dict[str, Any] = {"tenant": job.tenant_id, "job": job.job_id, "canaries": bool(counts.canaries_waiting)}
    found: list[AgentId] = []
    for online in (True, False) if job.policy.rollout.online_first else (False,):
        if len(found) < most:
            statement = RELEASE.replace("ONLINE", _NEXT[online])
            cursor = await tx.execute(statement, asked | {"most": most - len(found)})
            found += [row[0] for row in await cursor.fetchall()]
    cursor = await tx.execute(UNFIT, asked | {"agents": found})
    unfit = {row[0] for row in await cursor.fetchall()}
    return [agent for agent in found if agent not in unfit]


MARK: Final = """
UPDATE job_executions
SET status = %(status)s, reason = coalesce(%(reason)s, reason), credit = %(credit)s, paced_at = %(paced_at)s,
    counts = %(counts)s::jsonb, started_at = coalesce(started_at, now()),
    completed_at = CASE WHEN %(ended)s THEN coalesce(completed_at, now()) END, is_settled = %(settled)s
WHERE tenant_id = %(tenant)s AND job_id = %(job)s
"""
CALL_OFF: Final = """
UPDATE agent_job_status SET status = 'CANCELED', reason = %(reason)s, completed_at = now(), last_updated_at = now()
WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND status = 'QUEUED'
"""


async def call_off(tx: Tx, job: Unsettled, reason: str) -> None:
    """Nobody who has not begun a job begins it any more."""
    parameters = {"tenant": job.tenant_id, "job": job.job_id, "reason": f"the job was called off: {reason}"}
    await tx.execute(CALL_OFF, parameters)


async def mark(tx: Tx, job: Unsettled, counts: Counts, status: Phase, step: Step) -> None:
    """Write how far a job is."""
    facts: dict[str, Any] = {"tenant": job.tenant_id, "job": job.job_id, "status": status, "reason": step.abort}
    facts |= {
        "settled": not counts.open,
        "credit": step.pace.credit,
        "paced_at": step.pace.at,
        "counts": msgspec.json.encode(counts).decode(),
    }
    await tx.execute(MARK, facts | {"ended": not counts.open or status in ("ABORTED", "CANCELED")})


def paced(job: Unsettled) -> Pace:
    """The pace as it was written, or that of a beginning."""
    return Pace(job.credit, job.paced_at or job.now)


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that did not begin a job, or did not end it, in its time."""

    job_id: UUID
    tenant_id: TenantId
    agent_uuid: AgentId
    job_name: str
    status: Status
    """`QUEUED` if it is tried again."""
    was: Status


# The time that the platform took no messages is not the agents' silence.
GIVE_UP: Final = """
UPDATE agent_job_status s
SET status = CASE WHEN l.again THEN 'QUEUED' ELSE 'TIMED_OUT' END,
    reason = CASE l.was WHEN 'QUEUED' THEN 'did not begin within ' || l.start_timeout_minutes || ' minutes'
                        ELSE 'did not end within ' || l.timeout_minutes || ' minutes' END,
    execution_number = s.execution_number + l.again::int, last_updated_at = now(),
    started_at = CASE WHEN NOT l.again THEN s.started_at END, completed_at = CASE WHEN NOT l.again THEN now() END,
    released_at = CASE WHEN NOT l.again THEN s.released_at
                       ELSE now() + make_interval(secs => l.retry_delay_seconds) END,
    notified_at = CASE WHEN NOT l.again THEN s.notified_at END
FROM (
    SELECT q.job_id, q.agent_uuid, q.status AS was, e.job_name, e.start_timeout_minutes, e.timeout_minutes,
           e.retry_delay_seconds,
           q.execution_number <= e.retries AND e.status IN ('IN_PROGRESS', 'PAUSED') AS again
    FROM agent_job_status q JOIN job_executions e USING (job_id),
         (SELECT since FROM presence_watch WHERE looked_at > now() - interval '30 seconds') w
    WHERE q.tenant_id <> ALL(%(but)s) AND ((q.status = 'IN_PROGRESS'
           AND greatest(q.started_at, w.since) < now() - make_interval(mins => e.timeout_minutes))
       OR (q.status = 'QUEUED' AND e.status = 'IN_PROGRESS'
           AND greatest(q.notified_at, w.since) < now() - make_interval(mins => e.start_timeout_minutes)
           AND q.notified_at IS NOT NULL))
    LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED
) l
WHERE s.job_id = l.job_id AND s.agent_uuid = l.agent_uuid
RETURNING s.job_id, s.tenant_id, s.agent_uuid, l.job_name, s.status, l.was
"""


async def give_up(tx: Tx, *, but: Sequence[TenantId]) -> list[GivenUp]:
    """Give up agents that took too long; those with tries left begin anew.

    None of the tenants whose messages wait (`but`): they may have answered.
    """
    return await rows_as(tx, GivenUp, GIVE_UP, {"most": MOST, "but": list(but)})


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is to be told."""

    job_id: UUID
    tenant_id: TenantId
    agent_uuid: AgentId
    job_document: dict[str, Any]
    queued_at: datetime
    last_updated_at: datetime
    execution_number: int
    until: datetime
    """When it is given up."""


_NOTICE: Final = """
UPDATE agent_job_status s SET notified_at = now()
FROM job_executions e
WHERE e.job_id = s.job_id AND (s.job_id, s.agent_uuid) IN (SELECT job_id, agent_uuid FROM due)
RETURNING s.job_id, s.tenant_id, s.agent_uuid, e.job_document, s.queued_at, s.last_updated_at, s.execution_number,
          now() + make_interval(mins => e.start_timeout_minutes) AS until
"""
UNTOLD: Final = f"""
WITH due AS (
    SELECT q.job_id, q.agent_uuid FROM agent_job_status q JOIN job_executions x USING (job_id)
    WHERE q.status = 'QUEUED' AND q.released_at <= now() AND q.notified_at IS NULL AND x.status = 'IN_PROGRESS'
      AND x.tenant_id <> ALL(%(but)s)
    ORDER BY q.released_at LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED)
{_NOTICE}
"""
# What was said to one that was offline may be lost.
BACK: Final = f"""
WITH due AS (
    SELECT q.job_id, q.agent_uuid FROM agent_job_status q JOIN job_executions x USING (job_id)
    JOIN agent_presence p ON p.agent_uuid = q.agent_uuid
    WHERE q.status = 'QUEUED' AND q.notified_at IS NOT NULL AND x.status = 'IN_PROGRESS'
      AND p.status = 'online' AND p.since > q.notified_at AND x.tenant_id <> ALL(%(but)s)
    LIMIT %(most)s FOR UPDATE OF q SKIP LOCKED)
{_NOTICE}
"""


async def notices(tx: Tx, *, most: int, back: bool, but: Sequence[TenantId] = ()) -> list[Notice]:
    """Agents that are to be told now: those a job has come to, or (`back`) that are there again."""
    return await rows_as(tx, Notice, BACK if back else UNTOLD, {"most": most, "but": list(but)})


TIME_LEFT: Final = timedelta(days=1)
"""The longest that a notice is kept for a broker that is away; the agent is told anew when it is back."""
