"""The route that lists the gaps in the message numbers of an agent."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain import time_ranges
from iotistica.domain.delivery import message_gaps
from iotistica.errors import NotFound
from iotistica.storage.agents import agents
from iotistica.storage.delivery import message_gaps as table

Time = Annotated[str | None, QueryParameter(max_length=64)]


class GapView(msgspec.Struct, frozen=True, kw_only=True):
    """Missing message numbers, `first` and `last` included, and when the messages around them were made."""

    first: int
    last: int
    count: int
    after: datetime
    before: datetime


class Gaps(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """If `counted` is false, the agent does not number its messages, and gaps cannot be detected."""

    agent_uuid: UUID
    start: datetime
    end: datetime
    counted: bool
    arrived: int
    missing: int
    gaps: list[GapView]


@get("/{agent:uuid}/gaps", opt={"permission": "agents.read"})
async def get_gaps(
    request: ApiRequest, database: DatabaseDep, agent: FromPath[UUID], start: Time = None, end: Time = None
) -> Gaps:
    """List the ranges of an agent's message numbers that never arrived; by default in the last day."""
    since, until = time_ranges.parse_range(start, end, now=datetime.now(UTC), default=timedelta(days=1))
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        runs = await table.runs(tx, tenant, agent)
    inside = [
        run for run in runs if run.last_ms >= since.timestamp() * 1000 and run.first_ms < until.timestamp() * 1000
    ]
    in_range = [gap for gap in message_gaps.gaps(runs) if gap.before >= since and gap.after < until]
    views = [
        GapView(first=gap.first, last=gap.last, count=gap.last - gap.first + 1, after=gap.after, before=gap.before)
        for gap in in_range
    ]
    return Gaps(
        agent_uuid=agent,
        start=since,
        end=until,
        counted=any(run.last > run.first for run in runs) or len(runs) > 1,
        arrived=sum(run.last - run.first + 1 for run in inside),
        missing=sum(view.count for view in views),
        gaps=views,
    )


router = Router("/agents", route_handlers=[get_gaps], tags=["agents"])
