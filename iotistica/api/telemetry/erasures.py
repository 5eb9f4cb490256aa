"""Readings deleted for good, by agent, device or metric."""

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
    """Done once `doneAt` is there: then `readings` of before `before` are gone, and all rollups of them."""

    id: UUID
    agent_uuid: UUID
    device: str | None
    metric: str | None
    before: datetime
    asked_at: datetime
    readings: int
    done_at: datetime | None


def _view(one: Erasure) -> ErasureView:
    return ErasureView(
        id=one.erasure_id,
        agent_uuid=one.agent_uuid,
        device=one.device_name,
        metric=one.metric_name,
        before=one.before,
        asked_at=one.asked_at,
        readings=one.readings,
        done_at=one.done_at,
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
    """Have all readings of an agent deleted, or of a device of it, or of a series; up to now unless told otherwise.

    It is done by and by, a day of readings at a time; `GET /erasures` shows how far it is.
    """
    tenant, now = tenant_of(request), datetime.now(UTC)
    until = parse_time(before, now=now, default=now, path="before")
    if until > now:
        raise Invalid("readings to come cannot be erased", "before")
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
        one = await table.request_erasure(
            tx, tenant, agent, device=device, metric=metric, before=until, by=actor_of(request)
        )
    return _view(one)


class Erasures(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    erasures: list[ErasureView]


@get("/erasures", opt={"permission": "readings.erase"})
async def list_erasures(request: ApiRequest, database: DatabaseDep, limit: Limit = 100) -> Erasures:
    """What was asked to be deleted, and how far it is."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return Erasures(erasures=[_view(one) for one in await table.page(tx, tenant, limit=limit)])


router = Router("/", route_handlers=[erase, list_erasures], tags=["readings"])
