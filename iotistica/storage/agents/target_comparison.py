"""The comparison of what an agent should run with what it reports, and the verdict on it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from iotistica.domain.access import document_secrets
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.control import explanation
from iotistica.domain.control import targets as rules
from iotistica.domain.control.explanation import AgentFacts, AgentFault, Verdict
from iotistica.domain.control.sealed_targets import open_target
from iotistica.domain.control.targets import Target
from iotistica.domain.documents import Change
from iotistica.domain.ids import TenantId
from iotistica.storage.agents import agent_search, poll_counts, reported_states
from iotistica.storage.agents.agent_search import AgentSummary
from iotistica.storage.agents.poll_counts import PollStats
from iotistica.storage.agents.reported_states import StateRow
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetHead, TargetLayers, TargetOwner
from iotistica.storage.postgres import Tx


class TargetRows(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored about an agent's target and state; secrets are encrypted."""

    agent: AgentSummary | None
    layers: TargetLayers
    own_head: TargetHead
    fleet_head: TargetHead | None
    state: StateRow | None
    polls: PollStats | None


class TargetComparison(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's target, its report with masked secrets, how they differ, and the verdict."""

    whole: Target
    fleet: Target
    """The target without the agent's own layer."""
    reported: Mapping[str, Any]
    unmet: list[Change]
    """Settings of the target that are not reported; secrets are sealed."""
    own_paths: set[str]
    """Those of them that the agent's own layer sets."""
    faults: list[AgentFault]
    facts: AgentFacts
    verdict: Verdict
    reason: str


async def load(tx: Tx, tenant: TenantId, agent: UUID) -> TargetRows:
    """Load the rows of an agent; raises `NotFound`."""
    layers = await targets.layers(tx, tenant, agent)
    fleet = layers.fleet_uuid
    return TargetRows(
        agent=await agent_search.get(tx, tenant, agent),
        layers=layers,
        own_head=await targets.head(tx, tenant, TargetOwner("agent", agent)),
        fleet_head=await targets.head(tx, tenant, TargetOwner("fleet", fleet)) if fleet else None,
        state=await reported_states.get(tx, tenant, agent),
        polls=await poll_counts.stats(tx, tenant, agent),
    )


def compare(rows: TargetRows, box: SecretBox, tenant: TenantId, now: datetime) -> TargetComparison:
    """Compare what is wanted with what is reported; decrypts both, and shows no secret."""

    def seal(document: Any) -> Any:
        return box.seal(document, tenant)

    own, fleet = open_target(box, rows.layers.own, tenant), open_target(box, rows.layers.fleet, tenant)
    whole = rules.effective_target(fleet, own)
    reported = box.open(rows.state.merged.values, tenant) if rows.state else {}
    unmet = explanation.unmet_settings(whole, reported, seal)
    masked = document_secrets.mask(reported)
    faults = explanation.faults(masked)
    facts = AgentFacts(
        state=rows.agent.state if rows.agent else "active",
        last_seen=rows.agent.last_seen if rows.agent else None,
        counter=rows.layers.counter,
        fetched=rows.polls.fetched if rows.polls else None,
        fetched_at=rows.polls.fetched_at if rows.polls else None,
        polled_at=rows.polls.polled_at if rows.polls else None,
        reported_at=rows.state.reported_at if rows.state else None,
        reported=reported.get("version"),
    )
    verdict, reason = explanation.verdict(facts, unmet, faults, is_empty=not (whole.apps or whole.config), now=now)
    drafts = [
        head.latest for head in (rows.own_head, rows.fleet_head) if head and head.latest > (head.deployed or 0)
    ]
    if drafts:
        reason += f" Version {max(drafts)} is a draft that is not deployed."
    return TargetComparison(
        whole=whole,
        fleet=rules.effective_target(fleet, rules.EMPTY_TARGET),
        reported=masked,
        unmet=unmet,
        own_paths={one.path for one in explanation.unmet_settings(own, reported, seal)},
        faults=faults,
        facts=facts,
        verdict=verdict,
        reason=reason,
    )
