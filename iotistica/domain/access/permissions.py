"""Who may do what: one table. Every route names one of its lines."""

from collections.abc import Collection
from typing import Final, Literal, NamedTuple

Role = Literal["viewer", "operator", "manager", "admin", "owner"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "manager", "admin", "owner")
"""Each may do what those before it may."""


class Rule(NamedTuple):
    """The least role; whether an agent may for itself, and an API key; whether it counts as administration."""

    least: Role
    agents: bool = False
    keys: bool = True
    rare: bool = False


PUBLIC: Final = "public"
"""Anybody, without logging in."""
AGENT: Final = "agent"
"""The agent that the path names, and nobody else."""
BROKER: Final = "broker"
"""A broker that knows the shared secret."""

PERMISSIONS: Final[dict[str, Rule]] = {
    "self": Rule("viewer", keys=False),
    "agents.read": Rule("viewer"),
    "agents.write": Rule("manager"),
    "agents.identity": Rule("admin", rare=True),
    "agents.update": Rule("manager"),
    "agents.rotate": Rule("admin", agents=True),
    "targets.read": Rule("viewer"),
    "targets.write": Rule("operator"),
    "readings.read": Rule("viewer"),
    "readings.write": Rule("operator", agents=True),
    "readings.erase": Rule("admin", keys=False, rare=True),
    "ingestion.read": Rule("viewer"),
    "ingestion.manage": Rule("manager"),
    "jobs.read": Rule("operator"),
    "jobs.write": Rule("operator"),
    "logs.read": Rule("viewer"),
    "fleets.read": Rule("viewer"),
    "fleets.write": Rule("manager"),
    "mqtt.read": Rule("operator"),
    "mqtt.manage": Rule("admin", keys=False, rare=True),
    "provisioning.manage": Rule("admin", keys=False, rare=True),
    "users.manage": Rule("admin", keys=False, rare=True),
    "keys.manage": Rule("admin", keys=False, rare=True),
    "audit.read": Rule("admin", rare=True),
}


def reaches(role: str, least: str) -> bool:
    """Whether a role is at least another one."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)


def may(permission: str, role: str, scopes: Collection[str] | None = None) -> bool:
    """Whether a role may, and one of the scopes of an API key says so where it has any."""
    rule = PERMISSIONS.get(permission)
    return rule is not None and reaches(role, rule.least) and (scopes is None or permission in scopes)
