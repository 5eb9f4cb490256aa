"""Stores jobs as a whole: their agents, rollout policy, phase and counts."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import msgspec

from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.job_transitions import JobAction
from iotistica.domain.control.jobs import Phase
from iotistica.domain.control.rollouts import JobCounts, RolloutPolicy
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, NotFound, TooMany
from iotistica.storage.control import agent_jobs
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row

AGENTS_LIMIT: Final = 100_000  # agents of one job
UNSETTLED_LIMIT: Final = 1000  # unfinished jobs of a tenant
KEEP_DAYS: Final = 365  # days that jobs are kept after their end
DELETE_LIMIT: Final = 1  # jobs deleted in one transaction, each with the rows of up to 100,000 agents


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A new job: its document, target, rollout policy and timeouts."""

    name: str
    document: dict[str, Any]
    template: UUID | None
    target: dict[str, Any]
    """The agents as the request described them, for display."""
    policy: RolloutPolicy
    scheduled_at: datetime | None
    timeout_minutes: int
    start_timeout_minutes: int
    retries: int
    retry_delay_seconds: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    job_name: str
    template_id: UUID | None
    target: dict[str, Any]
    total: int
    timeout_minutes: int
    start_timeout_minutes: int
    retries: int
    retry_delay_seconds: int
    policy: RolloutPolicy
    author: dict[str, Any]
    status: Phase
    reason: str | None
    scheduled_at: datetime | None
    queued_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    counts: JobCounts
    """At most a second or two old."""
    job_document: dict[str, Any] | None = None
    """Present only if a single job is read."""


_COLUMNS: Final = """job_id, job_name, template_id, target, total, timeout_minutes, start_timeout_minutes, retries,
retry_delay_seconds, policy, author, status, reason, scheduled_at, queued_at, started_at, completed_at, counts"""
COUNT_UNSETTLED: Final = """
SELECT count(*) FROM (
    SELECT FROM job_executions WHERE tenant_id = %(tenant)s AND NOT is_settled LIMIT %(most)s) few
"""
ADD: Final = f"""
INSERT INTO job_executions (job_id, tenant_id, job_name, template_id, job_document, target, total, timeout_minutes,
    start_timeout_minutes, retries, retry_delay_seconds, policy, author, status, scheduled_at, queued_at, counts)
VALUES (%(job)s, %(tenant)s, %(name)s, %(template)s, %(document)s::jsonb, %(target)s::jsonb, %(total)s,
    %(timeout_minutes)s, %(start_timeout_minutes)s, %(retries)s, %(retry_delay_seconds)s, %(policy)s::jsonb,
    %(author)s::jsonb, 'QUEUED', %(scheduled_at)s, now(), %(counts)s::jsonb)
RETURNING {_COLUMNS}
"""
# The order is random, or the first agents could all be at one site; canaries are online agents if there are enough.
ADD_AGENTS: Final = """
INSERT INTO agent_job_status
    (job_id, agent_uuid, tenant_id, status, is_canary, position, queued_at, last_updated_at)
SELECT %(job)s, agent_uuid, %(tenant)s, 'QUEUED',
       row_number() OVER (ORDER BY (p.status = 'online') IS TRUE DESC, mix) <= %(canary)s,
       row_number() OVER (ORDER BY mix), now(), now()
FROM (SELECT id AS agent_uuid, md5(id::text || %(job)s::text) AS mix FROM unnest(%(agents)s::uuid[]) AS id) a
LEFT JOIN agent_presence p USING (agent_uuid)
"""


async def add(tx: Tx, tenant: TenantId, wanted: JobSpec, agents: Sequence[UUID], *, by: Actor) -> Job:
    """Store a job for these agents; it starts within a second, or at its scheduled time. Raises `TooMany`."""
    cursor = await tx.execute(COUNT_UNSETTLED, {"tenant": tenant, "most": UNSETTLED_LIMIT})
    if ((await cursor.fetchone()) or (0,))[0] >= UNSETTLED_LIMIT:
        raise TooMany(f"The tenant has {UNSETTLED_LIMIT} unfinished jobs: wait, or cancel some.", seconds=60)
    job, canary = uuid4(), wanted.policy.rollout.canary
    parameters = msgspec.structs.asdict(wanted) | {"job": job, "tenant": tenant, "total": len(agents)}
    parameters["author"] = by.author
    parameters["counts"] = JobCounts(waiting=len(agents), canaries=min(canary, len(agents)))
    for key in ("document", "target", "policy", "author", "counts"):
        parameters[key] = jsonb(parameters[key])
    created = await fetch_row(tx, Job, ADD, parameters)
    assert created is not None  # noqa: S101 it was inserted
    await tx.execute(ADD_AGENTS, {"job": job, "tenant": tenant, "canary": canary, "agents": list(agents)})
    after = {"name": wanted.name, "target": wanted.target, "agents": len(agents), "template": wanted.template}
    await audit.record(tx, tenant, by, "job.executed", ("job", job), after=after)
    return created


TAKES_JOBS: Final = """
SELECT agent_uuid, active AND state = 'active' FROM agents
WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
"""


async def accept_jobs(tx: Tx, tenant: TenantId, agents: Collection[UUID]) -> dict[UUID, bool]:
    """Return for each agent whether it is active and so accepts jobs; unknown agents are left out."""
    cursor = await tx.execute(TAKES_JOBS, {"tenant": tenant, "agents": list(agents)})
    return dict(await cursor.fetchall())


PAGE: Final = f"""
SELECT {_COLUMNS} FROM job_executions
WHERE tenant_id = %(tenant)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(at)s::timestamptz IS NULL OR (queued_at, job_id) < (%(at)s, %(after)s))
ORDER BY queued_at DESC, job_id DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, *, status: Phase | None, before: tuple[datetime, UUID] | None, limit: int
) -> Page[Job]:
    """Return a page of a tenant's jobs, newest first."""
    at, after = before or (None, None)
    parameters = {"tenant": tenant, "status": status, "at": at, "after": after, "limit": limit}
    return await fetch_page(tx, Job, PAGE, parameters, cursor=("at", "after"))


GET: Final = f"""
SELECT {_COLUMNS}, job_document FROM job_executions WHERE tenant_id = %(tenant)s AND job_id = %(job)s
"""


async def get(tx: Tx, tenant: TenantId, job: UUID, *, locked: bool = False) -> Job:
    """Return one job with its document; `locked` locks its row. Raises `NotFound`."""
    lock: LiteralString = " FOR UPDATE" if locked else ""
    row = await fetch_row(tx, Job, GET + lock, {"tenant": tenant, "job": job})
    if row is None:
        raise NotFound
    return row


SET: Final = """
UPDATE job_executions SET status = %(status)s, reason = %(reason)s, paced_at = now(),
       completed_at = CASE WHEN %(stopped)s THEN now() END
WHERE tenant_id = %(tenant)s AND job_id = %(job)s
"""
# The time of a pause does not count as agents' silence: they are notified again, and their start timeout restarts.
NOTIFY_AGAIN: Final = """
UPDATE agent_job_status SET notified_at = NULL
WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND status = 'QUEUED' AND released_at IS NOT NULL
"""


async def change_status(
    tx: Tx,
    tenant: TenantId,
    job: UUID,
    what: JobAction,
    *,
    force: bool = False,
    reason: str | None = None,
    by: Actor,
) -> Job:
    """Pause, resume or cancel a job; raises `NotFound`, and `Conflict` if its phase does not allow that.

    Agents that have started the job continue it, unless a cancel has `force`.
    """
    old = await get(tx, tenant, job, locked=True)
    if what == "cancel" and force and old.status in transitions.STOPPED:
        await agent_jobs.cancel(
            tx, tenant, job=job, force=True, reason=reason or "canceled by force after the job was stopped"
        )
        await audit.record(tx, tenant, by, "job.cancel", ("job", job), after={"force": True})
        return old
    action = transitions.ACTIONS[what]
    if old.status not in action.allowed:
        hint = (
            "; with force=true, cancel also ends it for agents that have started it"
            if what == "cancel" and old.counts.open
            else ""
        )
        raise Conflict(f"The job is {old.status}; {what} requires {' or '.join(action.allowed)}{hint}.")
    key = {"tenant": tenant, "job": job}
    stopped = action.phase in transitions.STOPPED
    await tx.execute(SET, key | {"status": action.phase, "reason": reason, "stopped": stopped})
    if what == "resume":
        await tx.execute(NOTIFY_AGAIN, key)
    if what == "cancel":
        await agent_jobs.cancel(tx, tenant, job=job, force=force, reason=reason or "the job was canceled")
    after = {"status": action.phase, "reason": reason, "force": force}
    await audit.record(tx, tenant, by, f"job.{what}", ("job", job), before={"status": old.status}, after=after)
    return await get(tx, tenant, job)


async def cancel_one(tx: Tx, tenant: TenantId, job: UUID, agent: UUID, *, force: bool, by: Actor) -> bool:
    """Cancel a job for one agent; return whether it was cancelable there."""
    canceled = await agent_jobs.cancel(
        tx, tenant, job=job, agents=[agent], force=force, reason="canceled for this agent"
    )
    if canceled:
        await audit.record(tx, tenant, by, "job.cancel", ("job", job), after={"agent": agent, "force": force})
    return bool(canceled)


DELETE: Final = "DELETE FROM job_executions WHERE tenant_id = %(tenant)s AND job_id = %(job)s"


async def delete(tx: Tx, tenant: TenantId, job: UUID, *, by: Actor) -> None:
    """Delete a job that has ended; raises `NotFound`, and `Conflict` if it has not ended."""
    old = await get(tx, tenant, job, locked=True)
    if old.status in transitions.ACTIONS["cancel"].allowed or old.counts.in_progress:
        raise Conflict(
            f"The job is {old.status}, and {old.counts.in_progress} agents are running it."
            " Cancel it with force=true first."
        )
    await tx.execute(DELETE, {"tenant": tenant, "job": job})
    await audit.record(
        tx, tenant, by, "job.deleted", ("job", job), before={"name": old.job_name, "status": old.status}
    )


DELETE_OLD: Final = """
DELETE FROM job_executions WHERE job_id = ANY(ARRAY(
    SELECT job_id FROM job_executions WHERE is_settled AND completed_at < %(before)s LIMIT %(most)s))
"""


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete up to `DELETE_LIMIT` jobs that ended before a time."""
    await tx.execute(DELETE_OLD, {"before": before, "most": DELETE_LIMIT})
