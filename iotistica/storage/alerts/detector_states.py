"""Stores what the learned detectors know of the series of an agent, packed into one value for each agent."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.alerts.detector_state import DetectorState
from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx

AGENTS_PER_READ: Final = 100  # agents whose detectors one statement reads; each series has up to 2 kB

AgentDetectors = dict[str, DetectorState]
"""By the name of the series."""

_DECODER: Final = msgspec.msgpack.Decoder(dict[str, bytes])
_ENCODER: Final = msgspec.msgpack.Encoder()

LOAD: Final = """
SELECT agent_uuid, packed FROM detector_states WHERE tenant_id = ANY(%(tenants)s) AND agent_uuid = ANY(%(agents)s)
"""


async def load(tx: Tx, tenants: Sequence[TenantId], agents: Sequence[UUID]) -> dict[UUID, AgentDetectors]:
    """Return the detectors of these agents; one that an earlier version stored in another way is left out."""
    found: dict[UUID, AgentDetectors] = {}
    for at in range(0, len(agents), AGENTS_PER_READ):
        parameters = {"tenants": list(tenants), "agents": list(agents[at : at + AGENTS_PER_READ])}
        for agent, packed in await (await tx.execute(LOAD, parameters)).fetchall():
            found[agent] = {}
            for name, content in _DECODER.decode(packed).items():
                try:
                    found[agent][name] = DetectorState.from_bytes(content)
                except ValueError:
                    continue  # it learns anew from the stored readings
    return found


# An agent that was deleted meanwhile is skipped.
SAVE: Final = """
INSERT INTO detector_states (tenant_id, agent_uuid, packed)
SELECT a.tenant_id, n.agent_uuid, n.packed
FROM unnest(%(tenants)s::text[], %(agents)s::uuid[], %(packed)s::bytea[]) AS n (tenant_id, agent_uuid, packed)
JOIN agents a USING (tenant_id, agent_uuid) ORDER BY n.agent_uuid
ON CONFLICT (agent_uuid) DO UPDATE SET packed = excluded.packed
"""


async def save(tx: Tx, detectors: Mapping[tuple[TenantId, UUID], AgentDetectors]) -> None:
    """Store detectors of these agents; what is stored of their other series stays, for the rules of another day."""
    keys = list(detectors)
    for at in range(0, len(keys), AGENTS_PER_READ):
        group = keys[at : at + AGENTS_PER_READ]
        parameters = {"tenants": [tenant for tenant, _ in group], "agents": [agent for _, agent in group]}
        rows = await (await tx.execute(LOAD, parameters)).fetchall()
        stored = {agent: _DECODER.decode(packed) for agent, packed in rows}
        packed = [
            _ENCODER.encode(
                stored.get(key[1], {}) | {name: state.to_bytes() for name, state in detectors[key].items()}
            )
            for key in group
        ]
        await tx.execute(SAVE, parameters | {"packed": packed})
