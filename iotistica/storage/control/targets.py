"""Stores the targets of agents and fleets: immutable versions, and which version is deployed."""

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.control.targets import EMPTY_TARGET, Target
from iotistica.domain.documents import Change
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import NotFound
from iotistica.storage.history import audit, timeline
from iotistica.storage.history.audit import Actor
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row


class TargetOwner(NamedTuple):
    """The agent or fleet that a target belongs to."""

    kind: Literal["agent", "fleet"]
    id: UUID


class TargetHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a target (0: none), and the deployed version."""

    latest: int = 0
    deployed: int | None = None
    deployed_at: datetime | None = None
    deployed_by: dict[str, Any] | None = None


class TargetVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version with sealed secrets; `changes` are the differences from its base version, secrets masked."""

    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    changes: list[dict[str, Any]]
    note: str | None
    restores: int | None
    author: dict[str, Any]
    at: datetime

    @property
    def target(self) -> Target:
        return Target(apps=self.apps, config=self.config)


HEAD: Final = """
SELECT latest, deployed, deployed_at, deployed_by FROM targets
WHERE tenant_id = %(tenant)s AND subject = %(subject)s
"""
EXISTS: Final = """
SELECT 1 FROM agents WHERE tenant_id = %(tenant)s AND agent_uuid = %(subject)s AND %(kind)s = 'agent'
UNION ALL
SELECT 1 FROM fleets WHERE tenant_id = %(tenant)s AND fleet_uuid = %(subject)s AND %(kind)s = 'fleet'
"""
LOCK: Final = """
INSERT INTO targets (tenant_id, agent_uuid, fleet_uuid, latest) VALUES (%(tenant)s, %(agent)s, %(fleet)s, 0)
ON CONFLICT (subject) DO UPDATE SET latest = targets.latest
"""


def _parameters(tenant: TenantId, subject: TargetOwner) -> dict[str, Any]:
    ids = {"agent": None, "fleet": None} | {subject.kind: subject.id}
    return {"tenant": tenant, "subject": subject.id, "kind": subject.kind} | ids


async def head(tx: Tx, tenant: TenantId, subject: TargetOwner) -> TargetHead:
    """Return the head of a target, empty if it has no version; raises `NotFound` if the owner does not exist."""
    parameters = _parameters(tenant, subject)
    row = await fetch_row(tx, TargetHead, HEAD, parameters)
    if row is None and await (await tx.execute(EXISTS, parameters)).fetchone() is None:
        raise NotFound
    return row or TargetHead()


# A deployment would not see an agent that is just moved into the fleet, so the one transaction waits for the other.
LOCK_FLEET: Final = """
SELECT 1 FROM fleets WHERE tenant_id = %(tenant)s AND fleet_uuid = %(subject)s FOR UPDATE
"""


async def lock(tx: Tx, tenant: TenantId, subject: TargetOwner) -> TargetHead:
    """Return the head, and lock the target and the members of a fleet until the commit; raises `NotFound`."""
    parameters = _parameters(tenant, subject)
    if subject.kind == "fleet":
        await tx.execute(LOCK_FLEET, parameters)
    await head(tx, tenant, subject)
    await tx.execute(LOCK, parameters)
    return await fetch_row(tx, TargetHead, HEAD, parameters) or TargetHead()


_COLUMNS: Final = "version, apps, config, changes, note, restores, author, at"
GET: Final = f"""
SELECT {_COLUMNS} FROM target_versions
WHERE tenant_id = %(tenant)s AND subject = %(subject)s AND version = %(version)s
"""


async def find(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int) -> TargetVersion | None:
    """Return one version; None if it does not exist."""
    return await fetch_row(tx, TargetVersion, GET, _parameters(tenant, subject) | {"version": version})


async def get(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int) -> TargetVersion:
    """Return one version; raises `NotFound`."""
    row = await find(tx, tenant, subject, version)
    if row is None:
        raise NotFound(f"There is no version {version} of this target.")
    return row


async def document_of(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int | None) -> Target:
    """Return the target of a version; the empty target for version 0 or None."""
    return (await get(tx, tenant, subject, version)).target if version else EMPTY_TARGET


PAGE: Final = f"""
SELECT {_COLUMNS} FROM target_versions
WHERE tenant_id = %(tenant)s AND subject = %(subject)s AND (%(before)s::int IS NULL OR version < %(before)s)
ORDER BY version DESC LIMIT %(limit)s
"""


async def page(
    tx: Tx, tenant: TenantId, subject: TargetOwner, *, before: int | None, limit: int
) -> Page[TargetVersion]:
    """Return a page of the versions, newest first."""
    parameters = _parameters(tenant, subject) | {"before": before, "limit": limit}
    return await fetch_page(tx, TargetVersion, PAGE, parameters, cursor=("before",))


COUNTER: Final = "SELECT counter FROM agent_sync WHERE tenant_id = %(tenant)s AND agent_uuid = %(subject)s"
ADD: Final = """
INSERT INTO target_versions (tenant_id, agent_uuid, fleet_uuid, version, apps, config, changes, note, restores,
                             author)
VALUES (%(tenant)s, %(agent)s, %(fleet)s, %(version)s, %(apps)s::jsonb, %(config)s::jsonb, %(changes)s::jsonb,
        %(note)s, %(restores)s, %(author)s::jsonb)
"""
LATEST: Final = """
UPDATE targets SET latest = %(version)s WHERE tenant_id = %(tenant)s AND subject = %(subject)s
"""


async def write(
    tx: Tx,
    tenant: TenantId,
    subject: TargetOwner,
    old: TargetHead,
    new: Target,
    *,
    changes: list[Change],
    by: Actor,
    note: str | None = None,
    restores: int | None = None,
) -> int:
    """Store a new version (with sealed secrets) of a locked target; return its number.

    The number is higher than every version that the agent has received so far, so that the agent applies it.
    """
    row = await (await tx.execute(COUNTER, _parameters(tenant, subject))).fetchone()
    version = max(old.latest, row[0] if row else 0) + 1
    content = {
        "version": version,
        "apps": jsonb(new.apps),
        "config": jsonb(new.config),
        "changes": jsonb(changes),
        "note": note,
        "restores": restores,
        "author": jsonb(by.author),
    }
    parameters = _parameters(tenant, subject) | content
    await tx.execute(ADD, parameters)
    await tx.execute(LATEST, parameters)
    after = {"version": version, "changes": msgspec.to_builtins(changes)}
    await audit.record(tx, tenant, by, "target.written", (subject.kind, subject.id), after=after)
    return version


VERSIONS_LIMIT: Final = 1000  # versions kept of a target, in addition to the deployed one
DELETE_OLD_VERSIONS: Final = """
DELETE FROM target_versions v USING targets t, (
    SELECT subject, version, row_number() OVER (PARTITION BY subject ORDER BY version DESC) AS place
    FROM target_versions WHERE subject IN (SELECT subject FROM targets WHERE latest > %(kept)s)
) old
WHERE old.place > %(kept)s AND v.subject = old.subject AND v.version = old.version AND t.subject = v.subject
  AND v.version IS DISTINCT FROM t.deployed
"""


async def delete_old_versions(tx: Tx) -> None:
    """Delete all but the newest `VERSIONS_LIMIT` versions of each target; `tx` sees every tenant."""
    await tx.execute(DELETE_OLD_VERSIONS, {"kept": VERSIONS_LIMIT})


DEPLOY: Final = """
UPDATE targets SET deployed = %(version)s, deployed_at = now(), deployed_by = %(author)s::jsonb
WHERE tenant_id = %(tenant)s AND subject = %(subject)s
"""
RAISE_AGENT: Final = """
UPDATE agent_sync SET counter = greatest(counter + 1, %(version)s), changed = pg_current_xact_id()
WHERE tenant_id = %(tenant)s AND agent_uuid = %(subject)s
"""
RAISE_FLEET: Final = """
UPDATE agent_sync s
SET counter = greatest(s.counter, (SELECT latest FROM targets t WHERE t.subject = s.agent_uuid)) + 1,
    changed = pg_current_xact_id()
FROM agents a
WHERE a.tenant_id = %(tenant)s AND a.fleet_uuid = %(subject)s AND s.agent_uuid = a.agent_uuid
"""


async def deploy(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int, *, by: Actor) -> None:
    """Deploy an existing version of a locked target."""
    parameters = _parameters(tenant, subject) | {"version": version, "author": jsonb(by.author)}
    await tx.execute(DEPLOY, parameters)
    if subject.kind == "fleet":  # locks agents before their counters, the order of all other code that locks both
        details = audit.timeline_details(by, {"version": version, "fleet": subject.id})
        await timeline.add_to_fleet(tx, tenant, subject.id, "target.deployed", details)
    await tx.execute(RAISE_AGENT if subject.kind == "agent" else RAISE_FLEET, parameters)
    await audit.record(tx, tenant, by, "target.deployed", (subject.kind, subject.id), after={"version": version})


async def copy_to_replacement(tx: Tx, tenant: TenantId, old: UUID, new: UUID, *, by: Actor) -> None:
    """Deploy to agent `new` what is deployed to agent `old` itself, unless `new` has versions already."""
    source, subject = await head(tx, tenant, TargetOwner("agent", old)), TargetOwner("agent", new)
    replacement = await lock(tx, tenant, subject)
    if not source.deployed or replacement.latest:
        return
    target = await document_of(tx, tenant, TargetOwner("agent", old), source.deployed)
    version = await write(tx, tenant, subject, replacement, target, changes=[], by=by, note=f"copied from {old}")
    await deploy(tx, tenant, subject, version, by=by)


class TargetLayers(msgspec.Struct, frozen=True, kw_only=True):
    """The deployed layers of an agent's target: its own and its fleet's, with sealed secrets."""

    counter: int
    fleet_uuid: UUID | None = None
    own_deployed_at: datetime | None = None
    own_apps: dict[str, Any] | None = None
    own_config: dict[str, Any] | None = None
    fleet_deployed_at: datetime | None = None
    fleet_apps: dict[str, Any] | None = None
    fleet_config: dict[str, Any] | None = None

    @property
    def own(self) -> Target:
        return Target(apps=self.own_apps or {}, config=self.own_config or {})

    @property
    def fleet(self) -> Target:
        return Target(apps=self.fleet_apps or {}, config=self.fleet_config or {})

    @property
    def deployed_at(self) -> datetime | None:
        times = [at for at in (self.own_deployed_at, self.fleet_deployed_at) if at is not None]
        return max(times, default=None)


LAYERS: Final = """
SELECT s.counter, a.fleet_uuid, o.deployed_at AS own_deployed_at,
       ov.apps AS own_apps, ov.config AS own_config,
       f.deployed_at AS fleet_deployed_at,
       fv.apps AS fleet_apps, fv.config AS fleet_config
FROM agents a JOIN agent_sync s USING (agent_uuid)
LEFT JOIN targets o ON o.subject = a.agent_uuid
LEFT JOIN target_versions ov ON ov.subject = o.subject AND ov.version = o.deployed
LEFT JOIN targets f ON f.subject = a.fleet_uuid
LEFT JOIN target_versions fv ON fv.subject = f.subject AND fv.version = f.deployed
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s
"""


async def layers(tx: Tx, tenant: TenantId, agent: AgentId | UUID) -> TargetLayers:
    """Return the deployed layers of an agent's target; raises `NotFound`."""
    row = await fetch_row(tx, TargetLayers, LAYERS, {"tenant": tenant, "agent": agent})
    if row is None:
        raise NotFound
    return row
