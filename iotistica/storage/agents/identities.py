"""The life of an agent's identity: registered, proven, rotated, revoked, enrolled again, replaced, retired."""

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
        """What the audit shows."""
        return {"name": self.name, "state": self.state, "kind": self.kind, "fleet": self.fleet_uuid}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself when it registers; its key as the digest that is kept."""

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
    """An identity, locked until the commit; raises `NotFound`."""
    row = await fetch_row(tx, Identity, GET_FOR_UPDATE, {"tenant": tenant, "agent": agent})
    if row is None:
        raise NotFound
    return row


_TAKEN: Final = "an agent of this uuid is registered with another key; an administrator can re-enrol it"

# Calls for one uuid come one after the other, whosever they are.
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
    """Take an agent in under a provisioning key; the same again changes nothing and uses nothing up.

    An agent with a public key must prove it before it may do anything. Raises `Conflict` for a uuid that another
    tenant, key or public key holds, and `Unauthorized` for a provisioning key that is used up or expired.
    """
    tenant = owner.tenant_id
    await tx.execute(LOCK, {"agent": claim.agent})
    known = await fetch_row(tx, Identity, GET_FOR_UPDATE, {"tenant": tenant, "agent": claim.agent})
    if known is not None and await _is_same(tx, tenant, known, claim):
        return known
    is_expected = known is not None and known.state == "new" and (known.enrol_until or now) > now
    if known is not None and not is_expected:
        if known.state == "retired":
            raise Conflict("the agent of this uuid is retired: register this hardware under another uuid")
        raise Conflict(_TAKEN)
    if not await provisioning_keys.use(tx, tenant, owner.key_id):
        raise Unauthorized("this provisioning key is used up or has expired")
    parameters = msgspec.structs.asdict(claim) | {"tenant": tenant, "key": owner.key_id, "fleet": owner.fleet_uuid}
    parameters["state"] = "registered" if claim.public_key else "active"
    if known is None:
        await quotas.check_agents(tx, tenant)
        row = await fetch_row(tx, Identity, ADD, parameters)
        if row is None:
            raise Conflict(_TAKEN)
        await broker_accounts.add_agent(tx, tenant, claim.agent, key=server_key, enabled=not claim.public_key)
    else:
        row = await fetch_row(tx, Identity, ENROL, parameters)
        assert row is not None  # noqa: S101 it is locked
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
    """Let an agent in that signs one of its challenges; again is as good as once. Raises `Unauthorized`."""
    found = await get_for_update(tx, tenant, agent)
    challenges = await agent_keys.open_challenges(tx, tenant, agent)
    if found.public_key is None or not key_proofs.is_proven(
        key_proofs.public_key(found.public_key), agent, challenges, signature
    ):
        raise Unauthorized("the signature is not over `<uuid>:<challenge>` with the key that was registered")
    if found.state == "registered":
        await tx.execute(SET_PROVEN, {"tenant": tenant, "agent": agent})
        await broker_accounts.enable_agent(tx, tenant, found.agent_uuid, enabled=True)
        await audit.record(tx, tenant, by, "agent.proven", ("agent", agent))
    return found


async def rotate(tx: Tx, tenant: TenantId, agent: UUID, digest: bytes, *, until: datetime, by: Actor) -> None:
    """Give an agent another API key; its MQTT password stays. Raises `Conflict` if it has none to rotate."""
    found = await get_for_update(tx, tenant, agent)
    if found.state != "active":
        raise Conflict(f"an agent that is {found.state} has no key to rotate")
    await agent_keys.rotate(tx, tenant, found.agent_uuid, digest, until=until)
    await audit.record(tx, tenant, by, "agent.key_rotated", ("agent", agent), after={"old_key_until": until})


SET_STATE: Final = """
UPDATE agents SET state = %(state)s, enrol_until = %(until)s, replaced_by = coalesce(%(successor)s, replaced_by),
    public_key = CASE WHEN %(state)s = 'new' THEN NULL ELSE public_key END
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def _lock_out(
    tx: Tx,
    tenant: TenantId,
    found: Identity,
    state: str,
    *,
    server_key: bytes,
    until: datetime | None = None,
    successor: UUID | None = None,
) -> None:
    """End every key and the MQTT password, and set the state."""
    parameters = {"tenant": tenant, "agent": found.agent_uuid, "state": state, "until": until}
    await tx.execute(SET_STATE, parameters | {"successor": successor})
    await agent_keys.delete_all(tx, tenant, found.agent_uuid)
    await broker_accounts.reset_agent_password(tx, tenant, found.agent_uuid, key=server_key)
    word = "enrolled again" if state == "new" else state
    await agent_jobs.cancel(tx, tenant, agents=[found.agent_uuid], force=True, reason=f"the agent was {word}")


async def revoke(
    tx: Tx, tenant: TenantId, agent: UUID, *, reason: str | None, server_key: bytes, by: Actor
) -> None:
    """Lock an agent out, HTTP and MQTT; its readings stay, and it may be enrolled again."""
    found = await get_for_update(tx, tenant, agent)
    if found.state == "retired":
        raise Conflict("this agent is retired")
    if found.state == "revoked":
        return
    await _lock_out(tx, tenant, found, "revoked", server_key=server_key)
    after = {"state": "revoked", "reason": reason}
    await audit.record(tx, tenant, by, "agent.revoked", ("agent", agent), before=found.facts(), after=after)


async def re_enrol(tx: Tx, tenant: TenantId, agent: UUID, *, until: datetime, server_key: bytes, by: Actor) -> None:
    """Let an agent register anew until then, as after a factory reset: same uuid, same history, other keys.

    What it had ends now.
    """
    found = await get_for_update(tx, tenant, agent)
    if found.state == "retired":
        raise Conflict("this agent is retired; register its hardware under another uuid")
    await _lock_out(tx, tenant, found, "new", server_key=server_key, until=until)
    after = {"state": "new", "until": until}
    await audit.record(tx, tenant, by, "agent.re_enrolled", ("agent", agent), before=found.facts(), after=after)


async def retire(tx: Tx, tenant: TenantId, agent: UUID, *, server_key: bytes, by: Actor) -> None:
    """Take an agent out of service for good; its readings stay."""
    found = await get_for_update(tx, tenant, agent)
    if found.state == "retired":
        return
    await _lock_out(tx, tenant, found, "retired", server_key=server_key)
    after = {"state": "retired"}
    await audit.record(tx, tenant, by, "agent.retired", ("agent", agent), before=found.facts(), after=after)


TAKE_OVER_NAME: Final = """
UPDATE agents SET name = %(name)s, fleet_uuid = %(fleet)s WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def replace(tx: Tx, tenant: TenantId, agent: UUID, successor: UUID, *, server_key: bytes, by: Actor) -> None:
    """Put new hardware, which has registered itself, in the place of old.

    It takes over name, fleet, tags, and the target of its own if it has none.
    The old agent is retired and names its successor, so that its history is found. Raises `Conflict`.
    """
    first, second = sorted((agent, successor), key=lambda uuid: uuid.bytes)
    both = {uuid: await get_for_update(tx, tenant, uuid) for uuid in (first, second)}
    old, new = both[agent], both[successor]
    if agent == successor:
        raise Conflict("an agent cannot replace itself")
    if old.state == "retired":
        raise Conflict(f"{agent} is retired already")
    if new.state not in ("registered", "active"):
        raise Conflict(f"{successor} is {new.state}: the new hardware registers itself first")
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
