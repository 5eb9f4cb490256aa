"""Routes for jobs: start, list, pause, resume, cancel and delete."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit, Name, NamedBody, Text
from iotistica.domain.agents import tag_selectors
from iotistica.domain.control.job_transitions import JobAction
from iotistica.domain.control.jobs import Phase, merge_patch, validate_document
from iotistica.domain.control.rollouts import AbortRule, Rollout, RolloutPolicy
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid
from iotistica.storage.agents import agent_search, fleets
from iotistica.storage.agents.agent_search import AgentFilter
from iotistica.storage.control import agent_jobs, job_templates, jobs
from iotistica.storage.control.agent_jobs import AgentJob
from iotistica.storage.control.jobs import Job, JobSpec
from iotistica.storage.postgres import Database, Tx

READ = {"permission": "jobs.read"}
WRITE = {"permission": "jobs.write"}
SCHEDULE_LIMIT: Final = timedelta(days=366)  # between now and the scheduled time
LISTED_AGENTS_LIMIT: Final = 10_000  # agents listed in one request; a fleet or a selector can have more

Minutes = Annotated[int, Meta(ge=1, le=60 * 24 * 366)]


class JobSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scheduled_at: datetime


class NewJob(NamedBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job document, a template, or a template with a document merged into it; and the agents to run it."""

    job_name: Name
    job_document: dict[str, Any] | None = None
    template_id: UUID | None = None
    target_type: Literal["device", "group", "all"] | None = None
    """If absent, it follows from the fields below; all agents require an explicit `all`."""
    target_agents: Annotated[list[UUID], Meta(min_length=1, max_length=LISTED_AGENTS_LIMIT)] | None = None
    fleet_uuid: UUID | None = None
    selector: Annotated[str, Meta(max_length=tag_selectors.SELECTOR_LENGTH)] | None = None
    """A selector of tags, for example `site=berlin,!spare`."""
    target_filter: dict[str, Any] | None = None
    """An object of tags and their values, instead of `selector`."""
    schedule: JobSchedule | None = None
    timeout_minutes: Minutes = 60
    """From the start to the end of the job on one agent."""
    start_timeout_minutes: Minutes = 24 * 60
    """From the notice to the start of the job on one agent; after it, the job times out there."""
    retries: Annotated[int, Meta(ge=0, le=10)] = 0
    """How often an agent repeats the job after it failed or timed out there."""
    retry_delay_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    rollout: Rollout = Rollout()
    abort: Annotated[tuple[AbortRule, ...], Meta(max_length=10)] = ()


class SkippedAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    reason: str


class CreatedJob(msgspec.Struct, frozen=True, kw_only=True):
    job: Job
    skipped: list[SkippedAgent]
    """Agents in `target_agents` that are not active."""
    message: str


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    executions: list[Job]
    count: int
    total: int
    next: str | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    job: Job
    device_statuses: list[AgentJob]
    """The first 100 agents; `GET /jobs/executions/{job}/agents` lists all."""


class JobActionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Text | None = None
    force: bool = False
    """For a cancel: also cancel the job for agents that have started it."""


@post("/execute", opt=WRITE, status_code=201)
async def execute(request: ApiRequest, data: JSONBody[NewJob], database: DatabaseDep) -> CreatedJob:
    """Start a job on a list of agents, on a fleet, or on the agents that a selector or filter matches.

    Agents that are not active are left out.
    """
    tenant = tenant_of(request)
    selector = _selector(data)
    at = _time(data.schedule)
    async with database.transaction(tenant) as tx:
        document = await _document(tx, tenant, data)
        agents, skipped = await _agents(tx, tenant, data, selector)
        wanted = JobSpec(
            name=data.job_name,
            document=document,
            template=data.template_id,
            target=_target(data),
            policy=RolloutPolicy(rollout=data.rollout, abort=data.abort),
            scheduled_at=at,
            timeout_minutes=data.timeout_minutes,
            start_timeout_minutes=data.start_timeout_minutes,
            retries=data.retries,
            retry_delay_seconds=data.retry_delay_seconds,
        )
        job = await jobs.add(tx, tenant, wanted, agents, by=actor_of(request))
    message = f"The job is for {job.total} agent{'s' * (job.total != 1)}"
    return CreatedJob(
        job=job, skipped=skipped, message=message + (f" and starts at {at.isoformat()}." if at else ".")
    )


@get("/executions", opt=READ)
async def list_jobs(
    request: ApiRequest,
    database: DatabaseDep,
    status: FromQuery[Phase | None] = None,
    limit: Limit = 50,
    cursor: cursors.TimeCursor = None,
) -> Jobs:
    """List the jobs of the tenant, newest first."""
    tenant, before = tenant_of(request), cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        rows = await jobs.page(tx, tenant, status=status, before=before, limit=limit + 1)
    page, more = cut_page(rows, limit, lambda job: cursors.of_time(job.queued_at, job.job_id))
    return Jobs(executions=page, count=len(page), total=rows.total, next=more)


@get("/executions/{job:uuid}", opt=READ)
async def get_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> JobView:
    """Return one job with its document, and its status on the first 100 agents."""
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        row = await jobs.get(tx, tenant, job)
        agents = await agent_jobs.of_job(tx, tenant, job, after=None, limit=100)
    return JobView(job=row, device_statuses=agents)


@post("/executions/{job:uuid}/pause", opt=WRITE, status_code=200)
async def pause_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> Job:
    """Pause a job: no agent starts it until it is resumed; agents that have started it continue."""
    return await _change_status(request, database, job, "pause", JobActionBody())


@post("/executions/{job:uuid}/resume", opt=WRITE, status_code=200)
async def resume_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> Job:
    """Resume a paused job."""
    return await _change_status(request, database, job, "resume", JobActionBody())


@post("/executions/{job:uuid}/cancel", opt=WRITE, status_code=200)
async def cancel_job(
    request: ApiRequest, database: DatabaseDep, job: FromPath[UUID], data: JSONBody[JobActionBody | None] = None
) -> Job:
    """Cancel a job: no further agent starts it; `force` also cancels it on agents that have started it."""
    return await _change_status(request, database, job, "cancel", data or JobActionBody())


@delete("/{job:uuid}", opt=WRITE, status_code=204)
async def delete_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> None:
    """Delete a job that has ended, and the answers of its agents."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await jobs.delete(tx, tenant, job, by=actor_of(request))


async def _change_status(
    request: ApiRequest, database: Database, job: UUID, action: JobAction, body: JobActionBody
) -> Job:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        by = actor_of(request)
        return await jobs.change_status(tx, tenant, job, action, force=body.force, reason=body.reason, by=by)


async def _document(tx: Tx, tenant: TenantId, data: NewJob) -> dict[str, Any]:
    if data.job_document is None and data.template_id is None:
        raise Invalid("must be given if there is no template_id", "job_document")
    document: dict[str, Any] = {}
    if data.template_id is not None:
        document = await job_templates.resolve(tx, tenant, data.template_id, path="template_id")
    return validate_document(merge_patch(document, validate_document(data.job_document or {})))


def _selector(data: NewJob) -> tag_selectors.Selector:
    if data.selector is not None and data.target_filter is not None:
        raise Invalid("cannot be combined with selector", "target_filter")
    if data.target_filter is not None:
        return tag_selectors.from_tags(data.target_filter)
    return tag_selectors.parse(data.selector) if data.selector is not None else ()


def _time(schedule: JobSchedule | None) -> datetime | None:
    if schedule is None:
        return None
    at = schedule.scheduled_at
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC) + SCHEDULE_LIMIT:
        raise Invalid(f"must be at most {SCHEDULE_LIMIT.days} days from now", "schedule.scheduled_at")
    return at


def _kind(data: NewJob) -> Literal["device", "group", "all"]:
    """Return the type of target; a `target_type` that contradicts the other fields could reach wrong agents."""
    is_group = data.fleet_uuid is not None or data.selector is not None or data.target_filter is not None
    if is_group and data.target_agents is not None:
        raise Invalid("cannot be combined with fleet_uuid, selector or target_filter", "target_agents")
    named: Literal["device", "group"] | None = "group" if is_group else "device" if data.target_agents else None
    if data.target_type is None and named is None:
        raise Invalid(
            "must be all if there are no target_agents, fleet_uuid, selector or target_filter", "target_type"
        )
    if data.target_type is not None and data.target_type != (named or "all"):
        raise Invalid(f"must not be {data.target_type} with these target fields", "target_type")
    return named or "all"


async def _agents(
    tx: Tx, tenant: TenantId, data: NewJob, selector: tag_selectors.Selector
) -> tuple[list[UUID], list[SkippedAgent]]:
    """Return the agents that the job is for, and the listed agents that are not active."""
    if _kind(data) == "device":
        named = list(dict.fromkeys(data.target_agents or ()))
        is_active = await jobs.accept_jobs(tx, tenant, named)
        for number, agent in enumerate(data.target_agents or ()):
            if agent not in is_active:
                raise Invalid("must be the UUID of an existing agent", f"target_agents.{number}")
        agents = [agent for agent in named if is_active[agent]]
        reason = "the agent is not active"
        skipped = [SkippedAgent(agent_uuid=agent, reason=reason) for agent in named if not is_active[agent]]
    else:
        if data.fleet_uuid is not None and await fleets.find(tx, tenant, str(data.fleet_uuid)) is None:
            raise Invalid("must be the UUID of an existing fleet", "fleet_uuid")
        wanted = AgentFilter(fleet=data.fleet_uuid, selector=selector, state="active", active=True)
        agents, skipped = await agent_search.ids(tx, tenant, wanted, most=jobs.AGENTS_LIMIT + 1), []
    if not agents:
        raise Invalid("must match at least one active agent", "target_type")
    if len(agents) > jobs.AGENTS_LIMIT:
        raise Invalid(f"must match at most {jobs.AGENTS_LIMIT} agents", "target_type")
    return agents, skipped


def _target(data: NewJob) -> dict[str, Any]:
    """Return the target of the request for display."""
    names = ("fleet_uuid", "selector", "target_filter")
    shown = {name: value for name in names if (value := getattr(data, name)) is not None}
    return {
        "type": _kind(data),
        **shown,
        **({"agents": len(set(data.target_agents))} if data.target_agents else {}),
    }


router = Router(
    "/jobs",
    route_handlers=[
        *(execute, list_jobs, get_job, pause_job, resume_job, cancel_job, delete_job),
    ],
    tags=["jobs"],
)
