"""The route that accepts readings over HTTP; they take the same path as readings over MQTT."""

import asyncio
import time
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, post
from litestar.params import FromQuery, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, InboxDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.delivery import envelopes
from iotistica.domain.delivery.key_compaction import NeedsDictionary
from iotistica.domain.ids import AgentId, agent_topic
from iotistica.errors import Invalid, InvalidMessage, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.telemetry import partitions

Protocol = Annotated[str, QueryParameter(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class AcceptedReadings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The number of readings that are durable and will be stored, and of those that will be rejected, by reason."""

    agent_uuid: UUID
    accepted: int
    rejected: dict[str, int]


@post("/", opt={"permission": "readings.write"}, status_code=202)
async def write(
    request: ApiRequest,
    database: DatabaseDep,
    inbox: InboxDep,
    context: ServerContextDep,
    agent: FromQuery[UUID | None] = None,
    protocol: Protocol = "http",
) -> AcceptedReadings:
    """Accept readings in any shape that agents send, up to 1 MiB; answers 202 once they are durable.

    An agent writes its own readings; all other callers must name the agent.
    """
    agent_id = await _writing_for(request, database, agent)
    payload = await request.body()
    if len(payload) > PAYLOAD_CAP:
        raise Invalid(f"The body has more than {PAYLOAD_CAP} bytes: send it in parts.")
    retention_us = context.settings.retention_days * partitions.DAY_US
    received = time.time_ns() // 1000
    try:
        parsed = await asyncio.to_thread(
            envelopes.parse_readings, payload, protocol=protocol, received=received, retention_us=retention_us
        )
    except InvalidMessage as exc:
        raise Invalid(str(exc)) from exc
    except NeedsDictionary:
        raise Invalid("Readings compacted with a dictionary are accepted only by MQTT.") from None
    topic = f"{agent_topic(tenant_of(request), agent_id)}/endpoints/{protocol}"
    await inbox.accept([(topic.encode(), payload)])
    return AcceptedReadings(agent_uuid=agent_id, accepted=len(parsed.readings), rejected=parsed.rejected)


async def _writing_for(request: ApiRequest, database: DatabaseDep, agent: UUID | None) -> AgentId:
    if request.auth.kind == "agent":
        if agent not in (None, request.auth.id):
            raise NotFound
        return AgentId(request.auth.id)
    if agent is None:
        raise Invalid("must be given unless an agent writes its own readings", "agent")
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        if await agents.get(tx, tenant, agent) is None:
            raise NotFound
    return AgentId(agent)


router = Router("/readings", route_handlers=[write], tags=["readings"])
