"""The life cycle of an agent's identity: register, prove, rotate, revoke, re-enrol, replace, retire."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.agents import key_proofs
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Conflict, NotFound, Unauthorized
from iotistica.storage.access import quotas
from iotistica.storage.agents import agent_keys, broker_accounts, provisioning_keys, tags
from iotistica.storage.agents.provisioning_keys import KeyOwner
from iotistica.storage.control import agent_jobs, targets
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: AgentId
    name: str
    state: str
    kind: str | None
    fleet_uuid: UUID | None
    public_key: str | None
    enrol_until: datetime | None
    created_at: datetime

    def facts(self) -> dict[str, Any]:
        """Return the fields that the audit log records."""
        return {"name": self.name, "state": self.state, "kind": self.kind, "fleet": self.fleet_uuid}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent states about itself when it registers; `digest` is that of its API key."""

    agent: AgentId
    name: str
    kind: str | None
    digest: bytes
    public_key: str | None
    mac_address: str | None = None
    os_version: str | None = None
    agent_version: str | None = None


_COLUMNS: Final = "agent_uuid, name, state, kind, fleet_uuid, public_key, enrol_until, created_at"

GET_FOR_UPDATE: Final = f"""
SELECT {_COLUMNS} FROM agents WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s FOR NO KEY UPDATE
"""


async def get_for_update(tx: Tx, tenant: TenantId, agent: UUID) -> Identity:
    """Return an agent's identity, locked until the commit; raises `NotFound`."""
    row = await fetch_row(tx, Identity, GET_FOR_UPDATE, {"tenant": tenant, "agent": agent})
    if row is None:
        raise NotFound
    return row


_UUID_TAKEN: Final = "An agent with this uuid is registered with another key; an administrator can re-enrol it."

# Registrations of one uuid run one after the other, across all tenants.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('agent ' || %(agent)s::text, 0))"
ADD: Final = f"""
INSERT INTO agents (agent_uuid, tenant_id, name, state, kind, fleet_uuid, public_key, provisioning_key_id,
                    mac_address, os_version, agent_version, registered_at)
VALUES (%(agent)s, %(tenant)s, %(name)s, %(state)s, %(kind)s, %(fleet)s, %(public_key)s, %(key)s,
        %(mac_address)s, %(os_version)s, %(agent_version)s, now())
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""
ENROL: Final = f"""
UPDATE agents SET state = %(state)s, kind = %(kind)s, public_key = %(public_key)s, provisioning_key_id = %(key)s,
    mac_address = %(mac_address)s, os_version = %(os_version)s, agent_version = %(agent_version)s,
    registered_at = now(), verified_at = NULL, enrol_until = NULL
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s RETURNING {_COLUMNS}
"""


async def register(
    tx: Tx, claim: Claim, owner: KeyOwner, *, server_key: bytes, now: datetime, by: Actor
) -> Identity:
    """Register an agent with a provisioning key; a repeated call changes nothing and does not count as a use.

    An agent with a public key can do nothing until it has proved its private key. Raises `Conflict` if the uuid is
    registered by another tenant or with another key or public key, and `Unauthorized` if the provisioning key has
    no uses left or has expired.
    """
    tenant = owner.tenant_id
    await tx.execute(LOCK, {"agent": claim.agent})
    known = await fetch_row(tx, Identity, GET_FOR_UPDATE, {"tenant": tenant, "agent": claim.agent})
    if known is not None and await _is_same(tx, tenant, known, claim):
        return known
    can_enrol = known is not None and known.state == "new" and (known.enrol_until or now) > now
    if known is not None and not can_enrol:
        if known.state == "retired":
            raise Conflict("The agent with this uuid is retired; register this hardware under another uuid.")
        raise Conflict(_UUID_TAKEN)
    if not await provisioning_keys.use(tx, tenant, owner.key_id):
        raise Unauthorized("This provisioning key has no uses left or has expired.")
    parameters = msgspec.structs.asdict(claim) | {"tenant": tenant, "key": owner.key_id, "fleet": owner.fleet_uuid}
    parameters["state"] = "registered" if claim.public_key else "active"
    if known is None:
        await quotas.check_agents(tx, tenant)
        row = await fetch_row(tx, Identity, ADD, parameters)
        if row is None:
            raise Conflict(_UUID_TAKEN)
        await broker_accounts.add_agent(tx, tenant, claim.agent, key=server_key, enabled=not claim.public_key)
    else:
        row = await fetch_row(tx, Identity, ENROL, parameters)
        assert row is not None  # noqa: S101 the row is locked
        await broker_accounts.enable_agent(tx, tenant, claim.agent, enabled=not claim.public_key)
    await agent_keys.add(tx, tenant, claim.agent, claim.digest)
    after = row.facts() | {"provisioning_key": owner.key_id}
    before = known.facts() if known else None
    await audit.record(tx, tenant, by, "agent.registered", ("agent", claim.agent), before=before, after=after)
    return row


async def _is_same(tx: Tx, tenant: TenantId, known: Identity, claim: Claim) -> bool:
    return (
        known.state in ("registered", "active")
        and known.public_key is not None
        and known.public_key == claim.public_key
        and await agent_keys.has_key(tx, tenant, claim.agent, claim.digest)
    )


SET_PROVEN: Final = """
UPDATE agents SET state = 'active', verified_at = now()
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND state = 'registered'
"""


async def prove(tx: Tx, tenant: TenantId, agent: UUID, signature: str, *, by: Actor) -> Identity:
    """Activate an agent that has signed one of its challenges; repeating it changes nothing.

    Raises `Unauthorized` if the signature does not match any open challenge.
    """
    identity = await get_for_update(tx, tenant, agent)
    challenges = await agent_keys.open_challenges(tx, tenant, agent)
    if identity.public_key is None or not key_proofs.is_proven(
        key_proofs.public_key(identity.public_key), agent, challenges, signature
    ):
        raise Unauthorized("The signature does not match `<uuid>:<challenge>` and the registered public key.")
    if identity.state == "registered":
        await tx.execute(SET_PROVEN, {"tenant": tenant, "agent": agent})
        await broker_accounts.enable_agent(tx, tenant, identity.agent_uuid, enabled=True)
        await audit.record(tx, tenant, by, "agent.proven", ("agent", agent))
    return identity


async def rotate(tx: Tx, tenant: TenantId, agent: UUID, digest: bytes, *, until: datetime, by: Actor) -> None:
    """Give an agent a new API key; its MQTT password stays. Raises `Conflict` if the agent is not active."""
    identity = await get_for_update(tx, tenant, agent)
    if identity.state != "active":
        raise Conflict(f"This agent is {identity.state}; only the key of an active agent can be rotated.")
    await agent_keys.rotate(tx, tenant, identity.agent_uuid, digest, until=until)
    await audit.record(tx, tenant, by, "agent.key_rotated", ("agent", agent), after={"old_key_until": until})


SET_STATE: Final = """
UPDATE agents SET state = %(state)s, enrol_until = %(until)s, replaced_by = coalesce(%(successor)s, replaced_by),
    public_key = CASE WHEN %(state)s = 'new' THEN NULL ELSE public_key END
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def _lock_out(
    tx: Tx,
    tenant: TenantId,
    identity: Identity,
    state: str,
    *,
    server_key: bytes,
    until: datetime | None = None,
    successor: UUID | None = None,
) -> None:
    """Set the state, delete every key, replace the MQTT password and cancel the agent's jobs."""
    parameters = {"tenant": tenant, "agent": identity.agent_uuid, "state": state, "until": until}
    await tx.execute(SET_STATE, parameters | {"successor": successor})
    await agent_keys.delete_all(tx, tenant, identity.agent_uuid)
    await broker_accounts.reset_agent_password(tx, tenant, identity.agent_uuid, key=server_key)
    word = "enrolled again" if state == "new" else state
    reason = f"the agent was {word}"
    await agent_jobs.cancel(tx, tenant, agents=[identity.agent_uuid], force=True, reason=reason)


async def revoke(
    tx: Tx, tenant: TenantId, agent: UUID, *, reason: str | None, server_key: bytes, by: Actor
) -> None:
    """Lock an agent out of HTTP and MQTT; its readings stay, and it can be re-enrolled."""
    identity = await get_for_update(tx, tenant, agent)
    if identity.state == "retired":
        raise Conflict("This agent is retired.")
    if identity.state == "revoked":
        return
    await _lock_out(tx, tenant, identity, "revoked", server_key=server_key)
    after = {"state": "revoked", "reason": reason}
    await audit.record(tx, tenant, by, "agent.revoked", ("agent", agent), before=identity.facts(), after=after)


async def re_enrol(tx: Tx, tenant: TenantId, agent: UUID, *, until: datetime, server_key: bytes, by: Actor) -> None:
    """Let an agent register again before `until`, as after a factory reset: same uuid, same history, new keys.

    Its current keys and MQTT password end now.
    """
    identity = await get_for_update(tx, tenant, agent)
    if identity.state == "retired":
        raise Conflict("This agent is retired; register its hardware under another uuid.")
    await _lock_out(tx, tenant, identity, "new", server_key=server_key, until=until)
    after = {"state": "new", "until": until}
    await audit.record(tx, tenant, by, "agent.re_enrolled", ("agent", agent), before=identity.facts(), after=after)


async def retire(tx: Tx, tenant: TenantId, agent: UUID, *, server_key: bytes, by: Actor) -> None:
    """Take an agent out of service permanently; its readings stay."""
    identity = await get_for_update(tx, tenant, agent)
    if identity.state == "retired":
        return
    await _lock_out(tx, tenant, identity, "retired", server_key=server_key)
    after = {"state": "retired"}
    await audit.record(tx, tenant, by, "agent.retired", ("agent", agent), before=identity.facts(), after=after)


TAKE_OVER_NAME: Final = """
UPDATE agents SET name = %(name)s, fleet_uuid = %(fleet)s WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def replace(tx: Tx, tenant: TenantId, agent: UUID, successor: UUID, *, server_key: bytes, by: Actor) -> None:
    """Replace an agent with new hardware, the `successor`, which has already registered itself.

    The successor gets the name, fleet and tags of the old agent, and its agent target if it has none. The old agent
    is retired and refers to its successor, so that its history can be found. Raises `Conflict`.
    """
    first, second = sorted((agent, successor), key=lambda uuid: uuid.bytes)
    both = {uuid: await get_for_update(tx, tenant, uuid) for uuid in (first, second)}
    old, new = both[agent], both[successor]
    if agent == successor:
        raise Conflict("An agent cannot replace itself.")
    if old.state == "retired":
        raise Conflict(f"Agent {agent} is already retired.")
    if new.state not in ("registered", "active"):
        raise Conflict(f"Agent {successor} is {new.state}; the new hardware must register itself first.")
    await tx.execute(
        TAKE_OVER_NAME, {"tenant": tenant, "agent": successor, "name": old.name, "fleet": old.fleet_uuid}
    )
    await tags.inherit(tx, tenant, agent, successor)
    await targets.copy_to_replacement(tx, tenant, agent, successor, by=by)
    await _lock_out(tx, tenant, old, "retired", server_key=server_key, successor=successor)
    after = {"state": "retired", "replaced_by": successor}
    await audit.record(tx, tenant, by, "agent.replaced", ("agent", agent), before=old.facts(), after=after)
    after = {"name": old.name, "fleet": old.fleet_uuid, "replaces": agent}
    await audit.record(tx, tenant, by, "agent.inherited", ("agent", successor), before=new.facts(), after=after)
