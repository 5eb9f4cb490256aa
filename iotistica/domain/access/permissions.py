"""Who may do what: one table. Every route names one of its lines."""

from collections.abc import Collection
from typing import Final, Literal, NamedTuple

Role = Literal["viewer", "operator", "manager", "admin", "owner"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "manager", "admin", "owner")
"""Each may do what those before it may."""


class Permission(NamedTuple):
    """The least role; whether an agent may for itself, and an API key; whether it counts as administration."""

    minimum_role: Role
    agents: bool = False
    api_keys: bool = True
    is_administration: bool = False


PUBLIC: Final = "public"
"""Anybody, without logging in."""
AGENT: Final = "agent"
"""The agent that the path names, and nobody else."""
BROKER: Final = "broker"
"""A broker that knows the shared secret."""

PERMISSIONS: Final[dict[str, Permission]] = {
    "self": Permission("viewer", api_keys=False),
    "agents.read": Permission("viewer"),
    "agents.write": Permission("manager"),
    "agents.identity": Permission("admin", is_administration=True),
    "agents.update": Permission("manager"),
    "agents.rotate": Permission("admin", agents=True),
    "targets.read": Permission("viewer"),
    "targets.write": Permission("operator"),
    "readings.read": Permission("viewer"),
    "readings.write": Permission("operator", agents=True),
    "readings.erase": Permission("admin", api_keys=False, is_administration=True),
    "ingestion.read": Permission("viewer"),
    "ingestion.manage": Permission("manager"),
    "jobs.read": Permission("operator"),
    "jobs.write": Permission("operator"),
    "logs.read": Permission("viewer"),
    "fleets.read": Permission("viewer"),
    "fleets.write": Permission("manager"),
    "mqtt.read": Permission("operator"),
    "mqtt.manage": Permission("admin", api_keys=False, is_administration=True),
    "provisioning.manage": Permission("admin", api_keys=False, is_administration=True),
    "users.manage": Permission("admin", api_keys=False, is_administration=True),
    "keys.manage": Permission("admin", api_keys=False, is_administration=True),
    "audit.read": Permission("admin", is_administration=True),
}


def is_at_least(role: str, minimum_role: str) -> bool:
    """Whether a role is at least another one."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(minimum_role)


def is_allowed(permission: str, role: str, scopes: Collection[str] | None = None) -> bool:
    """Whether a role may, and one of the scopes of an API key says so where it has any."""
    rule = PERMISSIONS.get(permission)
    return rule is not None and is_at_least(role, rule.minimum_role) and (scopes is None or permission in scopes)
