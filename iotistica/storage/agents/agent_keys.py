"""API keys of agents, and the challenges with which agents prove their private keys."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row

CHALLENGES_LIMIT: Final = 8  # of an agent; repeated calls can arrive in any order
CHALLENGE_LIFETIME: Final = timedelta(hours=1)


class KeyHolder(msgspec.Struct, frozen=True, kw_only=True):
    """The agent that has a key; `is_new` if the key was never used."""

    tenant_id: TenantId
    agent_uuid: AgentId
    name: str
    state: str
    is_new: bool


FIND: Final = """
SELECT k.tenant_id, k.agent_uuid, a.name, a.state, k.used_at IS NULL AS is_new
FROM agent_keys k JOIN agents a USING (tenant_id, agent_uuid) JOIN tenants t USING (tenant_id)
WHERE k.digest = %(digest)s AND (k.expires_at IS NULL OR k.expires_at > now()) AND t.enabled
  AND a.state IN ('registered', 'active')
"""


async def find(tx: Tx, digest: bytes) -> KeyHolder | None:
    """Return the holder of the valid key with this digest, of any enabled tenant."""
    return await fetch_row(tx, KeyHolder, FIND, {"digest": digest})


FIRST_USE: Final = """
UPDATE agent_keys SET used_at = now() WHERE tenant_id = %(tenant)s AND digest = %(digest)s AND used_at IS NULL
RETURNING created_at
"""
DELETE_OLDER: Final = """
DELETE FROM agent_keys
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND digest <> %(digest)s AND created_at <= %(created)s
"""


async def record_first_use(tx: Tx, holder: KeyHolder, digest: bytes, *, by: Actor) -> None:
    """Record that an agent uses its new key; its older keys are deleted."""
    parameters = {"tenant": holder.tenant_id, "agent": holder.agent_uuid, "digest": digest}
    row = await (await tx.execute(FIRST_USE, parameters)).fetchone()
    if row is None:
        return  # a concurrent call recorded the first use
    cursor = await tx.execute(DELETE_OLDER, parameters | {"created": row[0]})
    if cursor.rowcount:
        await audit.record(tx, holder.tenant_id, by, "agent.key_adopted", ("agent", holder.agent_uuid))


HAS_KEY: Final = """
SELECT 1 FROM agent_keys WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND digest = %(digest)s
"""


async def has_key(tx: Tx, tenant: TenantId, agent: AgentId, digest: bytes) -> bool:
    """Whether the agent has a key with this digest."""
    cursor = await tx.execute(HAS_KEY, {"tenant": tenant, "agent": agent, "digest": digest})
    return await cursor.fetchone() is not None


ADD: Final = """
INSERT INTO agent_keys (digest, tenant_id, agent_uuid, created_at)
VALUES (%(digest)s, %(tenant)s, %(agent)s, clock_timestamp())
"""


async def add(tx: Tx, tenant: TenantId, agent: AgentId, digest: bytes) -> None:
    """Store a key of an agent; raises `Conflict` if any agent has the same key."""
    await tx.execute(ADD, {"tenant": tenant, "agent": agent, "digest": digest})


EXPIRE_USED: Final = """
UPDATE agent_keys SET expires_at = least(expires_at, %(until)s)
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND used_at IS NOT NULL
"""
DROP_UNUSED: Final = """
DELETE FROM agent_keys WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND used_at IS NULL
"""


async def rotate(tx: Tx, tenant: TenantId, agent: AgentId, digest: bytes, *, until: datetime) -> None:
    """Give an agent a new key; its current key ends when the new one is first used, and at `until` at the latest.

    A key of an earlier rotation that the agent never used ends at once.
    """
    await tx.execute(DROP_UNUSED, {"tenant": tenant, "agent": agent})
    await tx.execute(EXPIRE_USED, {"tenant": tenant, "agent": agent, "until": until})
    await add(tx, tenant, agent, digest)


DELETE_ALL: Final = "DELETE FROM agent_keys WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s"
DELETE_CHALLENGES: Final = "DELETE FROM agent_challenges WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s"


async def delete_all(tx: Tx, tenant: TenantId, agent: AgentId) -> None:
    """Delete all keys and challenges of an agent."""
    await tx.execute(DELETE_ALL, {"tenant": tenant, "agent": agent})
    await tx.execute(DELETE_CHALLENGES, {"tenant": tenant, "agent": agent})


ADD_CHALLENGE: Final = """
INSERT INTO agent_challenges (agent_uuid, challenge, tenant_id, expires_at)
VALUES (%(agent)s, %(challenge)s, %(tenant)s, %(expires)s)
"""
TRIM_CHALLENGES: Final = """
DELETE FROM agent_challenges WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND challenge NOT IN (
    SELECT challenge FROM agent_challenges WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
    ORDER BY expires_at DESC LIMIT %(most)s)
"""


async def add_challenge(tx: Tx, tenant: TenantId, agent: AgentId, text: str, *, expires: datetime) -> None:
    """Store a challenge; earlier ones stay valid, because a response that carried the new one can get lost."""
    await tx.execute(ADD_CHALLENGE, {"tenant": tenant, "agent": agent, "challenge": text, "expires": expires})
    await tx.execute(TRIM_CHALLENGES, {"tenant": tenant, "agent": agent, "most": CHALLENGES_LIMIT})


OPEN_CHALLENGES: Final = """
SELECT challenge FROM agent_challenges
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND expires_at > now()
"""


async def open_challenges(tx: Tx, tenant: TenantId, agent: UUID) -> list[str]:
    """Return the challenges that an agent can answer now; a failed proof does not use up any."""
    cursor = await tx.execute(OPEN_CHALLENGES, {"tenant": tenant, "agent": agent})
    return [text for (text,) in await cursor.fetchall()]
