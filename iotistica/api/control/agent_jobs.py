"""The jobs of one agent: taken and answered by itself, looked at and canceled by operators."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from iotistica.api.http import cursors
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.control import jobs as rules
from iotistica.domain.control.jobs import Status
from iotistica.errors import Conflict, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.control import agent_jobs as table
from iotistica.storage.control import jobs
from iotistica.storage.control.agent_jobs import AgentJob

READ = {"permission": "jobs.read"}
WRITE = {"permission": "jobs.write"}


class NextJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be done now; its end is answered with the number of the execution."""

    job_id: UUID
    job_name: str
    job_document: dict[str, Any]
    timeout_seconds: int
    created_at: datetime
    execution_number: int


class JobAnswerAccepted(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    status: Status
    """`QUEUED` if it is to be tried again."""


class AgentJobs(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    jobs: list[AgentJob]
    count: int
    next: str | None


class CanceledJob(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    agent_uuid: UUID
    status: Status


@get("/{agent:uuid}/jobs/next", opt={"permission": AGENT})
async def take_next(request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID]) -> NextJob:
    """Take the oldest job that waits for this agent; 404 if there is none. Of many calls at once one gets it."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await table.claim(tx, tenant, agent)
    if found is None:
        raise NotFound("no job waits for this agent")
    return NextJob(
        job_id=found.job_id,
        job_name=found.job_name,
        job_document=found.job_document,
        timeout_seconds=found.timeout_minutes * 60,
        created_at=found.queued_at,
        execution_number=found.execution_number,
    )


@patch("/{agent:uuid}/jobs/{job:uuid}/status", opt={"permission": AGENT}, request_max_body_size=PAYLOAD_CAP)
async def answer_job(
    request: ApiRequest, data: JSONBody[Any], database: DatabaseDep, agent: FromPath[UUID], job: FromPath[UUID]
) -> JobAnswerAccepted:
    """Say how far a job is, or how it ended: `{status, exit_code?, stdout?, stderr?, reason?, executed_steps?, …}`.

    The same again is no fault; 409 once it has ended otherwise.
    """
    tenant, said = tenant_of(request), rules.parse_answer(data)
    async with database.transaction(tenant) as tx:
        status = await table.record_answer(tx, tenant, agent, job, said, datetime.now(UTC))
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
    """The jobs of an agent, the newest first."""
    tenant, before = tenant_of(request), cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        found = await table.of_agent(tx, tenant, agent, status=status, before=before, limit=limit + 1)
    more = cursors.of_time(found[limit - 1].queued_at, found[limit - 1].job_id) if len(found) > limit else None
    return AgentJobs(agent_uuid=agent, jobs=found[:limit], count=len(found[:limit]), next=more)


@get("/{agent:uuid}/jobs/{job:uuid}", opt=READ)
async def get_agent_job(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], job: FromPath[UUID]
) -> AgentJob:
    """A job as one agent has it, with its outputs."""
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
    """Cancel a job for one agent; with `force` also if it has begun."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        done = await jobs.cancel_one(tx, tenant, job, agent, force=force, by=actor_of(request))
        now = await table.get(tx, tenant, agent, job)
    if not done:
        raise Conflict(f"this job is {now.status} for this agent")
    return CanceledJob(job_id=job, agent_uuid=agent, status=now.status)


router = Router(
    "/agents",
    route_handlers=[take_next, answer_job, list_agent_jobs, get_agent_job, cancel_agent_job],
    tags=["jobs"],
)
