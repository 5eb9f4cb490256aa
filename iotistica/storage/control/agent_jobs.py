"""Stores the status of jobs on each agent: claims, answers and cancels."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.job_transitions import Execution
from iotistica.domain.control.jobs import JobAnswer, Phase, Status
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row


class ClaimedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that an agent has claimed."""

    job_id: UUID
    job_name: str
    job_document: dict[str, Any]
    timeout_minutes: int
    execution_number: int
    queued_at: datetime
    started_at: datetime


CLAIM: Final = """
UPDATE agent_job_status s
SET status = %(claimed)s, started_at = now(), last_updated_at = now(), claim_token = %(token)s
FROM job_executions e
WHERE e.job_id = s.job_id AND s.tenant_id = %(tenant)s AND s.agent_uuid = %(agent)s AND s.job_id = (
    SELECT q.job_id FROM agent_job_status q JOIN job_executions x USING (job_id)
    WHERE q.tenant_id = %(tenant)s AND q.agent_uuid = %(agent)s AND q.status = 'QUEUED' AND q.released_at <= now()
      AND x.status = 'IN_PROGRESS'
    ORDER BY q.released_at, q.job_id LIMIT 1 FOR UPDATE OF q SKIP LOCKED)
RETURNING s.job_id, e.job_name, e.job_document, e.timeout_minutes, s.execution_number, s.queued_at, s.started_at
"""
# The row may be locked by a notice that is being sent instead of by another claim, so wait for it.
CLAIM_LOCKED: Final = CLAIM.replace(" SKIP LOCKED", "")


CLAIMED: Final = """
SELECT s.job_id, e.job_name, e.job_document, e.timeout_minutes, s.execution_number, s.queued_at, s.started_at
FROM agent_job_status s JOIN job_executions e USING (job_id)
WHERE s.tenant_id = %(tenant)s AND s.agent_uuid = %(agent)s AND s.status = 'IN_PROGRESS'
  AND s.claim_token = %(token)s AND s.started_at > now() - interval '60 seconds' ORDER BY s.started_at DESC LIMIT 1
"""


async def claim(tx: Tx, tenant: TenantId, agent: UUID, *, token: str | None = None) -> ClaimedJob | None:
    """Claim the oldest job that waits for an agent; None if there is none. Only one of concurrent callers gets it.

    A claim that repeats the `token` of a claim within the last minute returns the same job.
    """
    parameters = {"tenant": tenant, "agent": agent, "token": token}
    if token is not None and (claimed := await fetch_row(tx, ClaimedJob, CLAIMED, parameters)) is not None:
        return claimed
    parameters |= {"claimed": transitions.CLAIMED}
    job = await fetch_row(tx, ClaimedJob, CLAIM, parameters)
    if job is None:
        job = await fetch_row(tx, ClaimedJob, CLAIM_LOCKED, parameters)
    if job is not None:
        details = {"job": job.job_id, "name": job.job_name, "execution": job.execution_number}
        event = TimelineEvent(agent=agent, at=job.started_at, kind="job.started", details=details)
        await timeline.add(tx, tenant, [event])
    return job


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    execution_number: int
    job_name: str
    phase: Phase
    retries: int
    retry_delay_seconds: int
    is_between: bool
    """Whether an execution has ended and the agent was not notified of the next one."""


LOCK: Final = """
SELECT s.status, s.execution_number, e.job_name, e.status AS phase, e.retries, e.retry_delay_seconds,
       s.status = 'QUEUED' AND s.execution_number > 1 AND s.notified_at IS NULL AS is_between
FROM agent_job_status s JOIN job_executions e USING (job_id)
WHERE s.tenant_id = %(tenant)s AND s.agent_uuid = %(agent)s AND s.job_id = %(job)s AND s.released_at IS NOT NULL
FOR UPDATE OF s
"""
MOVE: Final = """
UPDATE agent_job_status
SET status = %(status)s, last_updated_at = %(at)s, execution_number = execution_number + %(again)s::int,
    started_at = CASE WHEN %(again)s THEN NULL ELSE coalesce(started_at, %(at)s) END,
    completed_at = CASE WHEN %(ended)s THEN %(at)s END,
    released_at = CASE WHEN %(again)s THEN %(at)s + make_interval(secs => %(delay)s) ELSE released_at END,
    notified_at = CASE WHEN %(again)s THEN NULL ELSE notified_at END,
    exit_code = coalesce(%(exit_code)s, exit_code), stdout = coalesce(%(stdout)s, stdout),
    stderr = coalesce(%(stderr)s, stderr), reason = coalesce(%(reason)s, reason),
    executed_steps = coalesce(%(executed_steps)s, executed_steps),
    failed_step = coalesce(%(failed_step)s, failed_step),
    status_details = coalesce(%(details)s::jsonb, status_details)
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND job_id = %(job)s
"""
# An answer that repeats the end may have details that the first one lacked.
COMPLETE: Final = """
UPDATE agent_job_status
SET exit_code = coalesce(exit_code, %(exit_code)s), stdout = coalesce(stdout, %(stdout)s),
    stderr = coalesce(stderr, %(stderr)s), reason = coalesce(reason, %(reason)s),
    executed_steps = coalesce(executed_steps, %(executed_steps)s),
    failed_step = coalesce(failed_step, %(failed_step)s),
    status_details = coalesce(status_details, %(details)s::jsonb)
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND job_id = %(job)s
"""
REOPEN_JOB: Final = """
UPDATE job_executions SET is_settled = false WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND is_settled
"""


async def record_answer(
    tx: Tx, tenant: TenantId, agent: UUID, job: UUID, answer: JobAnswer, at: datetime
) -> Status:
    """Store an agent's answer about a job; return the new status, `QUEUED` if another execution follows.

    Raises `NotFound`, and `Conflict` if that execution has ended. Repeating the same end is not a conflict.
    """
    key: dict[str, Any] = {"tenant": tenant, "agent": agent, "job": job}
    old = await fetch_row(tx, _Row, LOCK, key)
    if old is None:
        raise NotFound
    if answer.execution_number not in (None, old.execution_number):
        raise Conflict(f"execution {answer.execution_number} is over; now it is number {old.execution_number}")
    if answer.execution_number is None and old.is_between and answer.status != "SUCCEEDED":
        return old.status  # the agent repeats the end of the previous execution
    execution = Execution(old.status, old.execution_number, old.retries, old.phase)
    status = transitions.next_status(execution, answer.status)
    if status is None:
        if old.status == answer.status:
            await tx.execute(COMPLETE, key | _facts(answer))
            return old.status
        raise Conflict(f"this job has ended for this agent: {old.status}")
    facts = _facts(answer) | {"status": status, "at": at, "again": status == "QUEUED"}
    ended = status not in transitions.OPEN
    await tx.execute(MOVE, key | facts | {"ended": ended, "delay": old.retry_delay_seconds})
    if old.status not in transitions.OPEN:
        await tx.execute(REOPEN_JOB, key)
    if answer.status != old.status:
        details = {"job": job, "name": old.job_name, "execution": old.execution_number, "reason": answer.reason}
        kind = "job.started" if answer.status == "IN_PROGRESS" else f"job.{answer.status.lower()}"
        details |= {"late": True} if old.status not in transitions.OPEN else {}
        await timeline.add(tx, tenant, [TimelineEvent(agent=agent, at=at, kind=kind, details=details)])
    return status


def _facts(answer: JobAnswer) -> dict[str, Any]:
    details = jsonb(answer.details)
    return msgspec.structs.asdict(answer) | {"details": details}


CANCEL: Final = """
UPDATE agent_job_status
SET status = %(canceled)s, reason = %(reason)s, completed_at = now(), last_updated_at = now()
WHERE tenant_id = %(tenant)s AND status = ANY(%(cancelable)s)
  AND (%(job)s::uuid IS NULL OR job_id = %(job)s)
  AND (%(agents)s::uuid[] IS NULL OR agent_uuid = ANY(%(agents)s))
"""


async def cancel(
    tx: Tx,
    tenant: TenantId,
    *,
    job: UUID | None = None,
    agents: Sequence[UUID] | None = None,
    force: bool,
    reason: str,
) -> int:
    """Cancel a job for all or some of its agents, or all jobs of some agents; return how many were canceled.

    Jobs that an agent has started are canceled only with `force`.
    """
    filters = {"job": job, "agents": None if agents is None else list(agents)}
    statuses = {"canceled": transitions.CANCELED, "cancelable": list(transitions.cancelable(force=force))}
    # Not prepared: the best plan depends on whether the job, the agents or both are given.
    cursor = await tx.execute(CANCEL, {"tenant": tenant, "reason": reason} | filters | statuses, prepare=False)
    return cursor.rowcount


class AgentJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job on one agent."""

    job_id: UUID
    job_name: str
    agent_uuid: AgentId
    agent_name: str
    status: Status
    is_canary: bool
    execution_number: int
    queued_at: datetime
    released_at: datetime | None
    """The time from which the agent can claim the job; None until the rollout releases the agent."""
    notified_at: datetime | None
    started_at: datetime | None
    last_updated_at: datetime
    completed_at: datetime | None
    exit_code: int | None
    reason: str | None
    executed_steps: int | None
    failed_step: str | None
    status_details: dict[str, Any] | None
    stdout: str | None = None
    """The outputs are present only if a single job of an agent is read."""
    stderr: str | None = None


_COLUMNS: Final = """s.job_id, e.job_name, s.agent_uuid, a.name AS agent_name, s.status, s.is_canary,
s.execution_number, s.queued_at, s.released_at, s.notified_at, s.started_at, s.last_updated_at, s.completed_at,
s.exit_code, s.reason, s.executed_steps, s.failed_step, s.status_details"""
_FROM: Final = """
FROM agent_job_status s JOIN job_executions e USING (job_id) JOIN agents a ON a.agent_uuid = s.agent_uuid
WHERE s.tenant_id = %(tenant)s AND (%(status)s::text IS NULL OR s.status = %(status)s)
"""
OF_AGENT: Final = f"""
SELECT {_COLUMNS} {_FROM} AND s.agent_uuid = %(agent)s
  AND (%(at)s::timestamptz IS NULL OR (s.queued_at, s.job_id) < (%(at)s, %(after)s))
ORDER BY s.queued_at DESC, s.job_id DESC LIMIT %(limit)s
"""


async def of_agent(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    *,
    status: Status | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> Page[AgentJob]:
    """Return a page of the jobs of an agent, newest first."""
    at, after = before or (None, None)
    parameters = {"tenant": tenant, "agent": agent, "status": status, "at": at, "after": after, "limit": limit}
    return await fetch_page(tx, AgentJob, OF_AGENT, parameters, cursor=("at", "after"))


OF_JOB: Final = f"""
SELECT {_COLUMNS} {_FROM} AND s.job_id = %(job)s AND (%(canary)s::boolean IS NULL OR s.is_canary = %(canary)s)
  AND (%(after)s::uuid IS NULL OR s.agent_uuid > %(after)s)
ORDER BY s.agent_uuid LIMIT %(limit)s
"""


async def of_job(
    tx: Tx,
    tenant: TenantId,
    job: UUID,
    *,
    status: Status | None = None,
    is_canary: bool | None = None,
    after: UUID | None,
    limit: int,
) -> Page[AgentJob]:
    """Return a page of a job's status on its agents, ordered by agent id."""
    parameters = {"tenant": tenant, "job": job, "status": status, "canary": is_canary}
    parameters |= {"after": after, "limit": limit}
    return await fetch_page(tx, AgentJob, OF_JOB, parameters, cursor=("after",))


ONE: Final = f"SELECT {_COLUMNS}, s.stdout, s.stderr {_FROM} AND s.job_id = %(job)s AND s.agent_uuid = %(agent)s"


async def get(tx: Tx, tenant: TenantId, agent: UUID, job: UUID) -> AgentJob:
    """Return a job on one agent with its outputs; raises `NotFound`."""
    row = await fetch_row(tx, AgentJob, ONE, {"tenant": tenant, "agent": agent, "job": job, "status": None})
    if row is None:
        raise NotFound
    return row
