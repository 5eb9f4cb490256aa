"""Routes that delete the readings of an agent, device or metric for good, and list these erasures."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.domain.time_ranges import parse_time
from iotistica.errors import Invalid, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.telemetry import erasures as table
from iotistica.storage.telemetry.erasures import Erasure

Label = Annotated[str | None, QueryParameter(min_length=1, max_length=512)]


class ErasureView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An erasure of the readings before `before` and of their rollups.

    `readings` counts those deleted so far; `doneAt` is null until the erasure is complete.
    """

    id: UUID
    agent_uuid: UUID
    device: str | None
    metric: str | None
    before: datetime
    asked_at: datetime
    readings: int
    done_at: datetime | None


def _view(erasure: Erasure) -> ErasureView:
    return ErasureView(
        id=erasure.erasure_id,
        agent_uuid=erasure.agent_uuid,
        device=erasure.device_name,
        metric=erasure.metric_name,
        before=erasure.before,
        asked_at=erasure.asked_at,
        readings=erasure.readings,
        done_at=erasure.done_at,
    )


@delete("/readings/{agent:uuid}", opt={"permission": "readings.erase"}, status_code=202)
async def erase(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    device: Label = None,
    metric: Label = None,
    before: Annotated[str | None, QueryParameter(max_length=64)] = None,
) -> ErasureView:
    """Delete all readings of an agent, or those of one of its devices or metrics, together with their rollups.

    Deletes the readings before `before`, by default all up to now. The deletion runs in the background, one day of
    readings at a time; `GET /erasures` reports its progress.
    """
    tenant, now = tenant_of(request), datetime.now(UTC)
    until = parse_time(before, now=now, default=now, path="before")
    if until > now:
        raise Invalid("must not be in the future", "before")
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        erasure = await table.request_erasure(
            tx, tenant, agent, device=device, metric=metric, before=until, by=actor_of(request)
        )
    return _view(erasure)


class Erasures(msgspec.Struct, frozen=True, kw_only=True):
    """Erasures, the newest first."""

    erasures: list[ErasureView]


@get("/erasures", opt={"permission": "readings.erase"})
async def list_erasures(request: ApiRequest, database: DatabaseDep, limit: Limit = 100) -> Erasures:
    """List the requested erasures and their progress, the newest first."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return Erasures(erasures=[_view(erasure) for erasure in await table.page(tx, tenant, limit=limit)])


router = Router("/", route_handlers=[erase, list_erasures], tags=["readings"])
