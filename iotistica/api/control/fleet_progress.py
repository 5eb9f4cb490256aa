"""The route that reports how many agents of a fleet run their target state, and which do not."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.http.inputs import Cursor, Limit
from iotistica.domain.control.explanation import QUIET_AFTER
from iotistica.storage.control import fleet_progress, targets
from iotistica.storage.control.fleet_progress import STAGES, Stage
from iotistica.storage.control.targets import TargetOwner


class AgentProgressView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The progress of one agent; `version` is the version of its effective target (its own and its fleet's)."""

    agent_uuid: UUID
    name: str
    stage: Stage
    version: int
    fetched_version: int | None
    polled_at: datetime | None
    reported_at: datetime | None


class FleetProgress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`agents` are the agents that do not report their target yet, or those in the requested stage."""

    fleet_uuid: UUID
    deployed_version: int | None
    deployed_at: datetime | None
    stages: dict[Stage, int]
    agents: list[AgentProgressView]
    next: str | None


@get("/{fleet:uuid}/target-state/explain", opt={"permission": "targets.read"}, tags=["target state"])
async def explain_fleet(
    request: ApiRequest,
    database: DatabaseDep,
    fleet: FromPath[UUID],
    stage: FromQuery[Stage | None] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> FleetProgress:
    """Return the number of agents of a fleet by stage, and the agents that do not report their target yet.

    `GET /agents/{agent}/target-state/explain` explains the state of one agent.
    """
    tenant, after = tenant_of(request), cursors.parse_uuid(cursor)
    stages = (stage,) if stage else STAGES[1:]
    async with database.transaction(tenant, snapshot=True) as tx:
        head = await targets.head(tx, tenant, TargetOwner("fleet", fleet))
        counts = await fleet_progress.counts(tx, tenant, fleet, quiet=QUIET_AFTER)
        rows = await fleet_progress.page(
            tx, tenant, fleet, stages=stages, quiet=QUIET_AFTER, after=after, limit=limit + 1
        )
    page, more = cut_page(rows, limit, lambda agent: str(agent.agent_uuid))
    views = [
        AgentProgressView(
            agent_uuid=row.agent_uuid,
            name=row.name,
            stage=row.stage,
            version=row.version,
            fetched_version=row.fetched,
            polled_at=row.polled_at,
            reported_at=row.reported_at,
        )
        for row in page
    ]
    return FleetProgress(
        fleet_uuid=fleet,
        deployed_version=head.deployed,
        deployed_at=head.deployed_at,
        stages=counts,
        agents=views,
        next=more,
    )


router = Router("/fleets", route_handlers=[explain_fleet], tags=["fleets"])
