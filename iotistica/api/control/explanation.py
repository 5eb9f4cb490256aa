"""Why an agent is not doing what it was told."""

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
from iotistica.domain.control import targets as rules
from iotistica.domain.control.explanation import AgentFacts, AgentFault, Verdict
from iotistica.domain.control.targets import Target
from iotistica.storage.agents import agent_search, poll_counts, reported_states
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetHead, TargetOwner


class TargetLayer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One of the two targets that an agent's is made of."""

    uuid: UUID
    deployed_version: int | None
    deployed_at: datetime | None
    deployed_by: dict[str, Any] | None
    draft_version: int | None
    """A newer one that is written and not deployed."""


class WantedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent is told, secrets masked; `overrides` are what its own target changes of its fleet's."""

    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    own: TargetLayer
    fleet: TargetLayer | None
    overrides: list[dict[str, Any]]


class PollView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When the agent asked and what it got; counted in memory, and written every 10 s."""

    polled_at: datetime | None
    fetched_at: datetime | None
    fetched_version: int | None
    polls: int
    not_modified: int


class UnmetSetting(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    source: str
    """`own` or `fleet`: whose target says so."""
    wanted: Any = msgspec.UNSET
    reported: Any = msgspec.UNSET


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_uuid: UUID
    verdict: Verdict
    reason: str
    wanted: WantedTarget
    reported_version: Any
    """What the agent says it has; it begins at 1 with each of its starts, until its first poll."""
    reported_at: datetime | None
    poll: PollView
    differences: list[UnmetSetting]
    extra_endpoints: list[str]
    """Endpoints of the agent that its target does not have. Its last one it never gives up: disable that."""
    errors: list[AgentFault]


@get("/{agent:uuid}/target-state/explain", opt={"permission": "targets.read"})
async def explain(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, agent: FromPath[UUID]
) -> Explanation:
    """Wanted against reported: what differs, who wants it, whether the agent has fetched it, and what it says."""
    tenant, box = tenant_of(request), context.box
    async with database.transaction(tenant) as tx:
        found = await targets.sources(tx, tenant, agent)
        own_head = await targets.head(tx, tenant, TargetOwner("agent", agent))
        fleet_head = (
            await targets.head(tx, tenant, TargetOwner("fleet", found.fleet_uuid)) if found.fleet_uuid else None
        )
        state = await reported_states.get(tx, tenant, agent)
        asked = await poll_counts.stats(tx, tenant, agent)
        known = await agent_search.get(tx, tenant, agent)

    def opened(target: Target) -> Target:
        return Target(apps=box.open(target.apps, tenant), config=box.open(target.config, tenant))

    def seal(document: Any) -> Any:
        return box.seal(document, tenant)

    own, fleet = opened(found.own), opened(found.fleet)
    whole = rules.effective_target(fleet, own)
    reported = box.open(state.merged.values, tenant) if state else {}
    unmet = explanation.unmet_settings(whole, reported, seal)
    own_paths = {one.path for one in explanation.unmet_settings(own, reported, seal)}
    shown = document_secrets.mask(reported)
    broken = explanation.faults(shown)
    facts = AgentFacts(
        state=known.state if known else "active",
        heard_at=known.last_seen if known else None,
        counter=found.counter,
        fetched=asked.fetched if asked else None,
        fetched_at=asked.fetched_at if asked else None,
        polled_at=asked.polled_at if asked else None,
        reported_at=state.reported_at if state else None,
        reported=reported.get("version"),
    )
    word, reason = explanation.verdict(
        facts, unmet, broken, is_empty=not (whole.apps or whole.config), now=datetime.now(UTC)
    )
    drafts = [head.latest for head in (own_head, fleet_head) if head and head.latest > (head.deployed or 0)]
    if drafts:
        reason += f" Version {max(drafts)} is written and not deployed."
    theirs = rules.effective_target(fleet, rules.EMPTY_TARGET)
    overrides = documents.differences(seal(msgspec.to_builtins(theirs)), seal(msgspec.to_builtins(whole)))
    return Explanation(
        agent_uuid=agent,
        verdict=word,
        reason=reason,
        wanted=WantedTarget(
            version=found.counter,
            apps=document_secrets.mask(whole.apps),
            config=document_secrets.mask(whole.config),
            own=_layer(agent, own_head),
            fleet=_layer(found.fleet_uuid, fleet_head) if found.fleet_uuid and fleet_head else None,
            overrides=[document_secrets.mask(msgspec.to_builtins(one)) for one in overrides] if fleet_head else [],
        ),
        reported_version=shown.get("version"),
        reported_at=facts.reported_at,
        poll=PollView(
            polled_at=facts.polled_at,
            fetched_at=facts.fetched_at,
            fetched_version=facts.fetched,
            polls=asked.polls if asked else 0,
            not_modified=asked.not_modified if asked else 0,
        ),
        differences=[
            _unmet(document_secrets.mask(msgspec.to_builtins(one)), "own" if one.path in own_paths else "fleet")
            for one in unmet
        ],
        extra_endpoints=explanation.extra_endpoints(whole, shown),
        errors=broken,
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
