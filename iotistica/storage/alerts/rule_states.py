"""Stores what rules remember of the series and agents that they watch, packed into one value for each agent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from loguru import logger

from iotistica.domain.alerts.rule_states import RuleState
from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx

AGENTS_PER_READ: Final = 500  # agents whose states one statement reads


class SeriesProgress(msgspec.Struct, array_like=True, gc=False):
    """How far a series was watched, and what each rule remembers of it, by its `state_key`."""

    newest: int
    """The time up to which readings were judged, in us."""
    rules: dict[bytes, RuleState] = {}
    heard: int = 0
    """The time of the newest reading, in us; 0 if there was none for a long time."""


AgentStates = dict[str, SeriesProgress]
"""By the name of the series; what concerns the agent as a whole has a name that begins with a space."""

_DECODER: Final = msgspec.msgpack.Decoder(AgentStates)
_ENCODER: Final = msgspec.msgpack.Encoder()


class Subject(NamedTuple):
    """An agent of a tenant, or the tenant itself if `agent` is None."""

    tenant: TenantId
    agent: UUID | None


LOAD: Final = """
SELECT tenant_id, agent_uuid, packed FROM alert_states
WHERE tenant_id = ANY(%(tenants)s) AND (agent_uuid = ANY(%(agents)s) OR agent_uuid IS NULL)
"""


async def load(tx: Tx, subjects: Sequence[Subject]) -> dict[Subject, AgentStates]:
    """Return the states of these subjects; those without any are left out."""
    found: dict[Subject, AgentStates] = {}
    for at in range(0, len(subjects), AGENTS_PER_READ):
        group = subjects[at : at + AGENTS_PER_READ]
        parameters = {
            "tenants": sorted({subject.tenant for subject in group}),
            "agents": [subject.agent for subject in group if subject.agent is not None],
        }
        for tenant, agent, packed in await (await tx.execute(LOAD, parameters)).fetchall():
            subject = Subject(TenantId(tenant), agent)
            try:
                found[subject] = _DECODER.decode(packed)
            except msgspec.MsgspecError as exc:  # of another version: what it says is found out anew
                logger.bind(tenant=tenant, agent=agent, reason=str(exc)).error("states of rules cannot be read")
    return found


# An agent that was deleted meanwhile is skipped.
SAVE: Final = """
INSERT INTO alert_states (tenant_id, agent_uuid, packed)
SELECT n.*
FROM unnest(%(tenants)s::text[], %(agents)s::uuid[], %(packed)s::bytea[]) AS n (tenant_id, agent_uuid, packed)
JOIN tenants USING (tenant_id) LEFT JOIN agents a USING (tenant_id, agent_uuid)
WHERE n.agent_uuid IS NULL OR a.agent_uuid IS NOT NULL
ORDER BY n.tenant_id, n.agent_uuid
ON CONFLICT (tenant_id, agent_uuid) DO UPDATE SET packed = excluded.packed
"""


async def save(tx: Tx, states: Mapping[Subject, AgentStates]) -> None:
    """Store the whole state of each of these subjects."""
    if not states:
        return
    await tx.execute(
        SAVE,
        {
            "tenants": [subject.tenant for subject in states],
            "agents": [subject.agent for subject in states],
            "packed": [_ENCODER.encode(state) for state in states.values()],
        },
    )


RECORD_ROUND: Final = "UPDATE presence_watch SET rules_judged_at = %(now)s"


async def record_round(tx: Tx, now: datetime) -> None:
    """Note when the rules were applied."""
    await tx.execute(RECORD_ROUND, {"now": now})


LAST_ROUND: Final = "SELECT rules_judged_at FROM presence_watch"


async def last_round(tx: Tx) -> datetime | None:
    """Return when the rules were applied last, as far as that was noted; None if they never were."""
    row = await (await tx.execute(LAST_ROUND)).fetchone()
    return row[0] if row else None
