"""The route that says why an agent sends no data."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, RedisDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain.control.explanation import Verdict
from iotistica.domain.delivery import diagnosis
from iotistica.domain.delivery.diagnosis import Cause
from iotistica.domain.delivery.evidence import Evidence, PastEvent
from iotistica.storage.delivery import evidence


class AccountView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    state: str
    active: bool
    tenant_disabled: bool
    replaced_by: UUID | None


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    at: datetime
    """The latest time, if it happened `times` times within an hour."""
    times: int
    details: dict[str, Any]


class BrokerView(msgspec.Struct, frozen=True, kw_only=True):
    """The latest events of each kind that the broker told; `denied` are topics, `refused` are log-ins."""

    is_connected: bool = msgspec.field(name="isConnected")
    connected: EventView | None
    left: EventView | None
    refused: EventView | None
    denied: EventView | None
    taken_over: EventView | None = msgspec.field(name="takenOver")


class TargetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    verdict: Verdict
    reason: str
    polled_at: datetime | None
    reported_at: datetime | None


class Why(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`causes` are the likely ones, the likeliest first; none for an agent of which everything is accepted."""

    agent_uuid: UUID
    name: str
    status: str
    """`online`, `silent`, `offline`, or `new` if it has never contacted the platform."""
    since: datetime | None
    last_reading: datetime | None
    """The newest time of a reading of a device within the last six hours."""
    last_contact: datetime | None
    """When anything last arrived: data, a poll, a report or logs."""
    causes: list[Cause]
    account: AccountView
    broker: BrokerView
    refusals: list[EventView]
    """Messages and readings of the last days that were not accepted, by reason; `id` is that of a dead letter."""
    clock: EventView | None
    target: TargetView
    waiting_seconds: float
    """How long the oldest message of the tenant has waited to be stored."""


@get("/{agent:uuid}/why", opt={"permission": "agents.read"})
async def explain_silence(
    request: ApiRequest, database: DatabaseDep, redis: RedisDep, context: ServerContextDep, agent: FromPath[UUID]
) -> Why:
    """Say why an agent sends no data: the likely causes, the likeliest first, and everything they are judged by."""
    tenant = tenant_of(request)
    async with database.transaction(tenant, snapshot=True) as tx:
        rows = await evidence.load(tx, tenant, agent)
    now = datetime.now(UTC)
    streams = await evidence.load_streams(redis, tenant, agent, now)
    found = evidence.evidence(rows, streams, context.box, now)
    shown = rows.agent
    return Why(
        agent_uuid=agent,
        name=shown.name,
        status=shown.status or "new",
        since=shown.since,
        last_reading=found.readings_at,
        last_contact=found.heard_at,
        causes=diagnosis.causes(found),
        account=AccountView(
            state=shown.state,
            active=shown.active,
            tenant_disabled=found.tenant_disabled,
            replaced_by=shown.replaced_by,
        ),
        broker=BrokerView(
            is_connected=found.is_connected,
            connected=_event(found.connected),
            **{
                word: _event(found.latest(f"broker.{word}")) for word in ("left", "refused", "denied", "taken_over")
            },
        ),
        refusals=_refusals(found),
        clock=_event(found.latest("clock.ahead") or found.latest("clock.behind")),
        target=TargetView(
            verdict=found.target_verdict,
            reason=found.target_reason,
            polled_at=found.polled_at,
            reported_at=found.reported_at,
        ),
        waiting_seconds=round(found.waiting_seconds, 3),
    )


def _refusals(found: Evidence) -> list[EventView]:
    refused = [event for event in found.events if event.kind in ("message.refused", "readings.rejected")]
    newest = {(event.kind, event.details.get("reason")): event for event in reversed(refused)}
    return [_shown(event) for event in sorted(newest.values(), key=lambda event: event.at, reverse=True)]


def _event(event: PastEvent | None) -> EventView | None:
    return _shown(event) if event else None


def _shown(event: PastEvent) -> EventView:
    return EventView(kind=event.kind, at=event.at, times=event.times, details=event.details)


router = Router("/agents", route_handlers=[explain_silence], tags=["agents"])
