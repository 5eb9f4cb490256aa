"""Jobs: given to agents, watched, paused and called off."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from iotistica.api.http import cursors
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, Text
from iotistica.domain.agents import tag_selectors
from iotistica.domain.control.job_transitions import JobAction
from iotistica.domain.control.jobs import Phase, Status, merge_patch, validate_document
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
FURTHEST: Final = timedelta(days=366)
NAMED: Final = 10_000  # agents in one call; a fleet or a selector may have more

Minutes = Annotated[int, Meta(ge=1, le=60 * 24 * 366)]


class JobSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scheduled_at: datetime


class NewJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document, or a template, or one with the other merged into it; and whom it is for."""

    job_name: Name
    job_document: dict[str, Any] | None = None
    template_id: UUID | None = None
    target_type: Literal["device", "group", "all"] | None = None
    """What is named below, if absent; `all` must be said."""
    target_agents: Annotated[list[UUID], Meta(min_length=1, max_length=NAMED)] | None = None
    fleet_uuid: UUID | None = None
    selector: Annotated[str, Meta(max_length=tag_selectors.SELECTOR_LENGTH)] | None = None
    """As `site=berlin,!spare`."""
    target_filter: dict[str, Any] | None = None
    """Tags and their values: the same in another form."""
    schedule: JobSchedule | None = None
    timeout_minutes: Minutes = 60
    """From its beginning to its end, on one agent."""
    start_timeout_minutes: Minutes = 24 * 60
    """From the notice to its beginning: then the agent counts as silent."""
    retries: Annotated[int, Meta(ge=0, le=10)] = 0
    """How often one that failed or timed out is tried again."""
    retry_delay_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    rollout: Rollout = Rollout()
    abort: Annotated[tuple[AbortRule, ...], Meta(max_length=10)] = ()


class SkippedAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: UUID
    reason: str


class MadeJob(msgspec.Struct, frozen=True, kw_only=True):
    job: Job
    skipped: list[SkippedAgent]
    """Agents that were named and take no jobs."""
    message: str


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    executions: list[Job]
    count: int
    next: str | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    job: Job
    device_statuses: list[AgentJob]
    """The first hundred; `…/agents` has all."""


class JobAgents(msgspec.Struct, frozen=True, kw_only=True):
    device_statuses: list[AgentJob]
    count: int
    next: str | None


class JobActionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Text | None = None
    force: bool = False
    """Of a cancel: also for agents that have begun."""


@post("/execute", opt=WRITE, status_code=201)
async def execute(request: ApiRequest, data: JSONBody[NewJob], database: DatabaseDep) -> MadeJob:
    """Give a job to agents, a fleet, or whom a selector or a filter means; inactive ones are left out."""
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
        made = await jobs.add(tx, tenant, wanted, agents, by=actor_of(request))
    message = f"a job for {made.total} agent{'s' * (made.total != 1)}"
    return MadeJob(job=made, skipped=skipped, message=message + (f", from {at.isoformat()} on" if at else ""))


@get("/executions", opt=READ)
async def list_jobs(
    request: ApiRequest,
    database: DatabaseDep,
    status: FromQuery[Phase | None] = None,
    limit: Limit = 50,
    cursor: cursors.TimeCursor = None,
) -> Jobs:
    """The jobs of your tenant, the newest first."""
    tenant, before = tenant_of(request), cursors.parse_time_and_uuid(cursor)
    async with database.transaction(tenant) as tx:
        found = await jobs.page(tx, tenant, status=status, before=before, limit=limit + 1)
    more = cursors.of_time(found[limit - 1].queued_at, found[limit - 1].job_id) if len(found) > limit else None
    return Jobs(executions=found[:limit], count=len(found[:limit]), next=more)


@get("/executions/{job:uuid}", opt=READ)
async def get_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> JobView:
    """One job with its document, and how far its agents are."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await jobs.get(tx, tenant, job)
        agents = await agent_jobs.of_job(tx, tenant, job, status=None, after=None, limit=100)
    return JobView(job=found, device_statuses=agents)


@get("/executions/{job:uuid}/agents", opt=READ)
async def list_job_agents(
    request: ApiRequest,
    database: DatabaseDep,
    job: FromPath[UUID],
    status: FromQuery[Status | None] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> JobAgents:
    """How far the agents of a job are, in order of their ids."""
    tenant, after = tenant_of(request), cursors.parse_uuid(cursor)
    async with database.transaction(tenant) as tx:
        await jobs.get(tx, tenant, job)
        found = await agent_jobs.of_job(tx, tenant, job, status=status, after=after, limit=limit + 1)
    more = str(found[limit - 1].agent_uuid) if len(found) > limit else None
    return JobAgents(device_statuses=found[:limit], count=len(found[:limit]), next=more)


@post("/executions/{job:uuid}/pause", opt=WRITE, status_code=200)
async def pause_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> Job:
    """No agent begins it until it is resumed; those that have begun go on."""
    return await _order(request, database, job, "pause", JobActionBody())


@post("/executions/{job:uuid}/resume", opt=WRITE, status_code=200)
async def resume_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> Job:
    """Go on with one that was paused."""
    return await _order(request, database, job, "resume", JobActionBody())


@post("/executions/{job:uuid}/cancel", opt=WRITE, status_code=200)
async def cancel_job(
    request: ApiRequest, database: DatabaseDep, job: FromPath[UUID], data: JSONBody[JobActionBody | None] = None
) -> Job:
    """No agent begins it any more; with `force` those that have begun are not waited for either."""
    return await _order(request, database, job, "cancel", data or JobActionBody())


@delete("/{job:uuid}", opt=WRITE, status_code=204)
async def delete_job(request: ApiRequest, database: DatabaseDep, job: FromPath[UUID]) -> None:
    """Forget a job that has ended, with what its agents answered."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await jobs.delete(tx, tenant, job, by=actor_of(request))


async def _order(request: ApiRequest, database: Database, job: UUID, what: JobAction, why: JobActionBody) -> Job:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        by = actor_of(request)
        return await jobs.change_status(tx, tenant, job, what, force=why.force, reason=why.reason, by=by)


async def _document(tx: Tx, tenant: TenantId, data: NewJob) -> dict[str, Any]:
    if data.job_document is None and data.template_id is None:
        raise Invalid("a document, or a template_id, is needed", "job_document")
    document: dict[str, Any] = {}
    if data.template_id is not None:
        document = await job_templates.resolve(tx, tenant, data.template_id, path="template_id")
    return validate_document(merge_patch(document, validate_document(data.job_document or {})))


def _selector(data: NewJob) -> tag_selectors.Selector:
    if data.selector is not None and data.target_filter is not None:
        raise Invalid("a selector, or a target_filter", "target_filter")
    if data.target_filter is not None:
        return tag_selectors.from_tags(data.target_filter)
    return tag_selectors.parse(data.selector) if data.selector is not None else ()


def _time(schedule: JobSchedule | None) -> datetime | None:
    if schedule is None:
        return None
    at = schedule.scheduled_at
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC) + FURTHEST:
        raise Invalid(f"at most {FURTHEST.days} days ahead", "schedule.scheduled_at")
    return at


def _kind(data: NewJob) -> Literal["device", "group", "all"]:
    """Whom the job is for; a word that does not fit what is named would reach others than are meant."""
    is_group = data.fleet_uuid is not None or data.selector is not None or data.target_filter is not None
    if is_group and data.target_agents is not None:
        raise Invalid("either agents, or a fleet, a selector or a filter", "target_agents")
    named: Literal["device", "group"] | None = "group" if is_group else "device" if data.target_agents else None
    if data.target_type is None and named is None:
        raise Invalid("target_agents, fleet_uuid, selector, target_filter, or target_type: all", "target_type")
    if data.target_type is not None and data.target_type != (named or "all"):
        raise Invalid(f"{data.target_type} does not fit what is named", "target_type")
    return named or "all"


async def _agents(
    tx: Tx, tenant: TenantId, data: NewJob, selector: tag_selectors.Selector
) -> tuple[list[UUID], list[SkippedAgent]]:
    """The agents that the job is for, and those that were named and take none."""
    if _kind(data) == "device":
        named = list(dict.fromkeys(data.target_agents or ()))
        fit = await jobs.takes_jobs(tx, tenant, named)
        for number, agent in enumerate(data.target_agents or ()):
            if agent not in fit:
                raise Invalid("there is no such agent", f"target_agents.{number}")
        found = [agent for agent in named if fit[agent]]
        skipped = [SkippedAgent(agent_uuid=agent, reason="it is set aside") for agent in named if not fit[agent]]
    else:
        if data.fleet_uuid is not None and await fleets.find(tx, tenant, str(data.fleet_uuid)) is None:
            raise Invalid("there is no such fleet", "fleet_uuid")
        wanted = AgentFilter(fleet=data.fleet_uuid, selector=selector, state="active", active=True)
        found, skipped = await agent_search.ids(tx, tenant, wanted, most=jobs.AGENTS_LIMIT + 1), []
    if not found:
        raise Invalid("no active agent is meant", "target_type")
    if len(found) > jobs.AGENTS_LIMIT:
        raise Invalid(f"more than {jobs.AGENTS_LIMIT} agents are meant", "target_type")
    return found, skipped


def _target(data: NewJob) -> dict[str, Any]:
    """What was asked for, as it is shown."""
    names = ("fleet_uuid", "selector", "target_filter")
    shown = {name: value for name in names if (value := getattr(data, name)) is not None}
    return {"type": _kind(data), **shown, **({"agents": len(data.target_agents)} if data.target_agents else {})}


router = Router(
    "/jobs",
    route_handlers=[
        *(execute, list_jobs, get_job, list_job_agents, pause_job, resume_job, cancel_job, delete_job),
    ],
    tags=["jobs"],
)
