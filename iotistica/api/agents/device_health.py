"""The route for the health of an agent's endpoints: as configured, and as the agent reports them."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.access import document_secrets
from iotistica.domain.control import targets as rules
from iotistica.storage.agents import reported_states
from iotistica.storage.control import targets


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields that the agent has not reported are null; `status` is then `unknown`."""

    name: str
    protocol: str | None
    enabled: bool | None
    """The value in the agent's target; null if the endpoint is not in the target."""
    status: Any = "unknown"
    connected: Any = None
    last_poll: Any = None
    last_seen: Any = None
    error_count: Any = None
    last_error: Any = None
    response_time_ms: Any = None
    poll_success_rate: Any = None
    communication_quality: Any = None


class DeviceHealthSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    total: int
    enabled: int
    disabled: int
    online: int
    by_protocol: dict[str, int]


class DeviceHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    summary: DeviceHealthSummary
    devices: list[EndpointHealth]
    reported_at: Any


@get("/{agent:uuid}/device-health", opt={"permission": "agents.read"})
async def get_health(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    agent: FromPath[UUID],
    protocol: Annotated[str | None, QueryParameter(name="protocolType", max_length=32)] = None,
) -> DeviceHealth:
    """List the endpoints in an agent's target, and others that it reports, with their health.

    `protocolType` limits the list to one protocol.
    """
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        layers = await targets.layers(tx, tenant, agent)
        state = await reported_states.get(tx, tenant, agent)
    configured = rules.effective_target(layers.fleet, layers.own).config.get("endpoints") or []
    reported = (
        document_secrets.mask(context.box.open(state.merged.values, tenant)).get("endpoints_health")
        if state
        else None
    )
    health = (
        {name: facts for name, facts in reported.items() if isinstance(facts, dict)}
        if isinstance(reported, dict)
        else {}
    )
    by_name = {endpoint["name"]: endpoint for endpoint in configured}
    devices = [
        device
        for name in [*by_name, *(name for name in health if name not in by_name)]
        if protocol in (None, (device := _view(name, by_name.get(name), health.get(name, {}))).protocol)
    ]
    return DeviceHealth(
        agent_uuid=agent,
        summary=_summary(devices),
        devices=devices,
        reported_at=state.reported_at if state else None,
    )


def _view(name: str, configured: dict[str, Any] | None, facts: dict[str, Any]) -> EndpointHealth:
    reported = {
        field.name: facts[field.encode_name]
        for field in msgspec.structs.fields(EndpointHealth)
        if field.encode_name in facts and field.name not in ("name", "protocol", "enabled")
    }
    protocol = (configured or facts).get("protocol")
    return EndpointHealth(
        name=name,
        protocol=protocol if isinstance(protocol, str) else None,
        enabled=bool(configured.get("enabled", True)) if configured else None,
        **reported,
    )


def _summary(devices: list[EndpointHealth]) -> DeviceHealthSummary:
    protocols = [device.protocol or "unknown" for device in devices]
    return DeviceHealthSummary(
        total=len(devices),
        enabled=sum(device.enabled is True for device in devices),
        disabled=sum(device.enabled is False for device in devices),
        online=sum(device.status == "online" for device in devices),
        by_protocol={protocol: protocols.count(protocol) for protocol in dict.fromkeys(protocols)},
    )


router = Router("/agents", route_handlers=[get_health], tags=["agents"])
