"""Routes for the jobs of one agent: the agent claims and answers them, operators list and cancel them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain import codec
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.control import jobs as rules
from iotistica.domain.control.jobs import Status
from iotistica.errors import Conflict, Invalid, InvalidMessage, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.control import agent_jobs as table
from iotistica.storage.control import jobs
from iotistica.storage.control.agent_jobs import AgentJob

READ = {"permission": "jobs.read"}
WRITE = {"permission": "jobs.write"}


class NextJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to run now; the agent answers with its `execution_number`."""

    job_id: UUID
    job_name: str
    job_document: dict[str, Any]
    timeout_seconds: int
    created_at: datetime
    execution_number: int


class JobAnswerAccepted(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    status: Status
    """`QUEUED` if another execution follows."""


class AgentJobs(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    jobs: list[AgentJob]
    count: int
    total: int
    next: str | None


class CanceledJob(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    agent_uuid: UUID
    status: Status


@get("/{agent:uuid}/jobs/next", opt={"permission": AGENT})
async def take_next(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> NextJob:
    """Claim the oldest job that waits for this agent; 404 if there is none. One of concurrent calls gets it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        claimed = await table.claim(tx, tenant, agent)
    if claimed is None:
        raise NotFound("no job waits for this agent")
    return NextJob(
        job_id=claimed.job_id,
        job_name=claimed.job_name,
        job_document=claimed.job_document,
        timeout_seconds=claimed.timeout_minutes * 60,
        created_at=claimed.queued_at,
        execution_number=claimed.execution_number,
    )


@patch("/{agent:uuid}/jobs/{job:uuid}/status", opt={"permission": AGENT}, request_max_body_size=PAYLOAD_CAP)
async def answer_job(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], job: FromPath[UUID]
) -> JobAnswerAccepted:
    """Report the status of a job: `{status, exit_code?, stdout?, stderr?, reason?, executed_steps?, …}`.

    A field that is not what it should be is kept with the details, and never keeps the job from ending.
    Repeating an answer is allowed. If the job has ended with another status, the answer is 409.
    """
    tenant, payload = tenant_of(request), await request.body()
    try:
        answer = rules.parse_answer(codec.decode(*codec.unwrap(payload), object))
    except InvalidMessage as exc:
        raise Invalid(str(exc)) from exc
    async with database.transaction(tenant) as tx:
        status = await table.record_answer(tx, tenant, agent, job, answer, datetime.now(UTC))
    return JobAnswerAccepted(job_id=job, status=status)


@get("/{agent:uuid}/jobs", opt=READ)
async def list_agent_jobs(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    status: FromQuery[Status | None] = None,
    limit: Limit = 20,
    cursor: cursors.TimeCursor = None,
) -> AgentJobs:
    """List the jobs of an agent, newest first."""
    tenant, before = tenant_of(request), cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        rows = await table.of_agent(tx, tenant, agent, status=status, before=before, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda job: cursors.of_time(job.queued_at, job.job_id))
    return AgentJobs(agent_uuid=agent, jobs=page, count=len(page), total=rows.total, next=more)


@get("/{agent:uuid}/jobs/{job:uuid}", opt=READ)
async def get_agent_job(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], job: FromPath[UUID]
) -> AgentJob:
    """Return a job on one agent, with its outputs."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return await table.get(tx, tenant, agent, job)


@post("/{agent:uuid}/jobs/{job:uuid}/cancel", opt=WRITE, status_code=200)
async def cancel_agent_job(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    job: FromPath[UUID],
    force: FromQuery[bool] = False,
) -> CanceledJob:
    """Cancel a job for one agent; with `force` also if the agent has started it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        canceled = await jobs.cancel_one(tx, tenant, job, agent, force=force, by=actor_of(request))
        row = await table.get(tx, tenant, agent, job)
    if not canceled:
        raise Conflict(f"The job is {row.status} on this agent and cannot be canceled.")
    return CanceledJob(job_id=job, agent_uuid=agent, status=row.status)


router = Router(
    "/agents",
    route_handlers=[take_next, answer_job, list_agent_jobs, get_agent_job, cancel_agent_job],
    tags=["jobs"],
)
