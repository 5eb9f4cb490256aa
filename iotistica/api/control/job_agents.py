"""The route that lists the agents of a job with their status."""

from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Cursor, Limit
from iotistica.domain.control.jobs import Status
from iotistica.storage.control import agent_jobs, jobs
from iotistica.storage.control.agent_jobs import AgentJob


class JobAgents(msgspec.Struct, frozen=True, kw_only=True):
    device_statuses: list[AgentJob]
    count: int
    total: int
    next: str | None


@get("/executions/{job:uuid}/agents", opt={"permission": "jobs.read"})
async def list_job_agents(
    request: ApiRequest,
    database: DatabaseDep,
    job: FromPath[UUID],
    status: FromQuery[Status | None] = None,
    canary: FromQuery[bool | None] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> JobAgents:
    """List the status of a job on its agents, ordered by agent id.

    `canary` lists only the canaries, which get the job first, or only the other agents.
    """
    tenant, after = tenant_of(request), cursors.parse_uuid(cursor)
    async with database.transaction(tenant, snapshot=True) as tx:
        await jobs.get(tx, tenant, job)
        rows = await agent_jobs.of_job(
            tx, tenant, job, status=status, is_canary=canary, after=after, limit=limit + 1
        )
    page, more = cut_page(rows, limit, lambda agent: str(agent.agent_uuid))
    return JobAgents(device_statuses=page, count=len(page), total=rows.total, next=more)


router = Router("/jobs", route_handlers=[list_job_agents], tags=["jobs"])
