"""Routes that accept the reported state of agents, and routes that return it."""

import asyncio
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, patch
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, InboxDep, ServerContext, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.access import document_secrets
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.agents import reported_state
from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.ids import AgentId, agent_topic
from iotistica.errors import Invalid, InvalidMessage, NotFound
from iotistica.storage.agents import agents
from iotistica.storage.agents import reported_states as table
from iotistica.storage.postgres import Database

LONG: Final = 64 << 10  # bytes; longer reports are parsed in a thread, so as not to delay other requests


class ReportAccepted(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


class CurrentState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The value that an agent last reported for each key; secrets are masked."""

    agent_uuid: UUID
    apps: Any
    config: Any
    version: Any
    system_info: dict[str, Any]
    """All other reported keys, under the names that the agent uses."""
    reported_at: datetime | None
    """When the newest live report arrived; null if only replayed reports have arrived so far."""


class Interfaces(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    interfaces: list[Any]
    reported_at: datetime | None


class ReportedDevices(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    devices: list[Any]
    count: int
    reported_at: datetime | None


@patch(
    "/device/state",
    opt={"permission": AGENT},
    status_code=200,
    tags=["agent-facing"],
    request_max_body_size=PAYLOAD_CAP,
)
async def report(request: ApiRequest, inbox: InboxDep) -> ReportAccepted:
    """Accept a report `{"<uuid>": {…}}` of at most 1 MiB; answers once it is durable.

    Absent keys keep the values that were reported before.
    """
    agent, payload = AgentId(request.auth.id), await request.body()
    try:
        if len(payload) > LONG:
            await asyncio.to_thread(reported_state.parse_report, payload, agent, 0)
        else:
            reported_state.parse_report(payload, agent, 0)
    except InvalidMessage as exc:
        raise Invalid(str(exc)) from exc
    await inbox.accept([(f"{agent_topic(tenant_of(request), agent)}/state".encode(), payload)])
    return ReportAccepted()


@get("/{agent:uuid}/current-state", opt={"permission": "agents.read"})
async def get_current_state(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> CurrentState:
    """Return the state that an agent has reported so far; 404 before its first report."""
    values, reported_at = await _reported(request, database, context, agent)
    rest = {key: value for key, value in values.items() if key not in _OWN}
    own = {key: values.get(key) for key in _OWN}
    return CurrentState(agent_uuid=agent, system_info=rest, reported_at=reported_at, **own)


_OWN: Final = ("apps", "config", "version")


@get("/{agent:uuid}/network-interfaces", opt={"permission": "agents.read"})
async def get_interfaces(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> Interfaces:
    """List the network interfaces that an agent reports."""
    values, reported_at = await _reported(request, database, context, agent)
    return Interfaces(
        agent_uuid=agent, interfaces=_list_or_empty(values.get("network_interfaces")), reported_at=reported_at
    )


@get("/{agent:uuid}/reported-devices", opt={"permission": "agents.read"})
async def get_devices(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> ReportedDevices:
    """List the devices that an agent has found behind its endpoints."""
    values, reported_at = await _reported(request, database, context, agent)
    devices = _list_or_empty(values.get("devices"))
    return ReportedDevices(agent_uuid=agent, devices=devices, count=len(devices), reported_at=reported_at)


async def _reported(
    request: ApiRequest, database: Database, context: ServerContext, agent: UUID
) -> tuple[dict[str, Any], datetime | None]:
    """Return the reported values with secrets masked, and when they were reported; raises `NotFound`."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        row = await table.get(tx, tenant, agent)
        if row is None:
            known = await agents.get(tx, tenant, agent) is not None
            raise NotFound("The agent has not reported yet." if known else None)
    return document_secrets.mask(context.box.open(row.merged.values, tenant)), row.reported_at


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


router = Router("/agents", route_handlers=[get_current_state, get_interfaces, get_devices], tags=["agents"])
