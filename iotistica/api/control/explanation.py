"""The route that explains why an agent does not run its target state."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import tenant_of
from iotistica.domain import documents
from iotistica.domain.access import document_secrets
from iotistica.domain.control import explanation
from iotistica.domain.control.explanation import AgentFault, Verdict
from iotistica.storage.agents import target_comparison
from iotistica.storage.control.targets import TargetHead


class TargetLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One of the two layers of an agent's target: its own or its fleet's."""

    uuid: UUID
    deployed_version: int | None
    deployed_at: datetime | None
    deployed_by: dict[str, Any] | None
    draft_version: int | None
    """The newest version, if it is newer than the deployed one."""


class WantedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's target state, secrets masked; `overrides` are the changes of its own layer to its fleet's."""

    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    own: TargetLayer
    fleet: TargetLayer | None
    overrides: list[dict[str, Any]]


class PollView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The polls of the agent; counts are stored every 10 s, a fetched target and the first poll within a second."""

    polled_at: datetime | None
    fetched_at: datetime | None
    fetched_version: int | None
    polls: int
    not_modified: int


class UnmetSetting(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    source: str
    """The layer that has the setting: `own` or `fleet`."""
    wanted: Any = msgspec.UNSET
    reported: Any = msgspec.UNSET


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    verdict: Verdict
    reason: str
    wanted: WantedTarget
    reported_version: Any
    """The version that the agent reports; after each start it counts from 1 until its first poll."""
    reported_at: datetime | None
    poll: PollView
    differences: list[UnmetSetting]
    extra_endpoints: list[str]
    """Endpoints that the agent reports and that are not in its target.

    The public agent never removes its last endpoint; disable it instead.
    """
    errors: list[AgentFault]


@get("/{agent:uuid}/target-state/explain", opt={"permission": "targets.read"})
async def explain(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> Explanation:
    """Explain why an agent does not run its target state.

    Compares the target with the reported state: what differs, the layer that sets it, whether the agent has fetched
    the target, and the errors that the agent reports.
    """
    tenant, box = tenant_of(request), context.box
    async with database.transaction(tenant, snapshot=True) as tx:
        rows = await target_comparison.load(tx, tenant, agent)
    found = target_comparison.compare(rows, box, tenant, datetime.now(UTC))
    whole, facts, own_head, fleet_head = found.whole, found.facts, rows.own_head, rows.fleet_head
    overrides = documents.differences(
        box.seal(msgspec.to_builtins(found.fleet), tenant), box.seal(msgspec.to_builtins(whole), tenant)
    )
    return Explanation(
        agent_uuid=agent,
        verdict=found.verdict,
        reason=found.reason,
        wanted=WantedTarget(
            version=rows.layers.counter,
            apps=document_secrets.mask(whole.apps),
            config=document_secrets.mask(whole.config),
            own=_layer(agent, own_head),
            fleet=_layer(rows.layers.fleet_uuid, fleet_head) if rows.layers.fleet_uuid and fleet_head else None,
            overrides=[document_secrets.mask(msgspec.to_builtins(one)) for one in overrides] if fleet_head else [],
        ),
        reported_version=found.reported.get("version"),
        reported_at=facts.reported_at,
        poll=PollView(
            polled_at=facts.polled_at,
            fetched_at=facts.fetched_at,
            fetched_version=facts.fetched,
            polls=rows.polls.polls if rows.polls else 0,
            not_modified=rows.polls.not_modified if rows.polls else 0,
        ),
        differences=[
            _unmet(
                document_secrets.mask(msgspec.to_builtins(one)), "own" if one.path in found.own_paths else "fleet"
            )
            for one in found.unmet
        ],
        extra_endpoints=explanation.extra_endpoints(whole, found.reported),
        errors=found.faults,
    )


def _layer(uuid: UUID, head: TargetHead) -> TargetLayer:
    return TargetLayer(
        uuid=uuid,
        deployed_version=head.deployed,
        deployed_at=head.deployed_at,
        deployed_by=head.deployed_by,
        draft_version=head.latest if head.latest > (head.deployed or 0) else None,
    )


def _unmet(change: dict[str, Any], source: str) -> UnmetSetting:
    sides = {name: change[side] for name, side in (("wanted", "after"), ("reported", "before")) if side in change}
    return UnmetSetting(path=change["path"], source=source, **sides)


router = Router("/agents", route_handlers=[explain], tags=["agents"])
