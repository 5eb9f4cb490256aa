"""The table of permissions and the roles that have them; every route requires one of these permissions."""

from collections.abc import Collection
from typing import Final, Literal, NamedTuple

Role = Literal["viewer", "operator", "manager", "admin", "owner"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "manager", "admin", "owner")
"""Each role has all permissions of the roles before it."""


class Permission(NamedTuple):
    """The minimum role of a permission, and who else has it.

    `agents`: an agent has it for itself. `api_keys`: an API key can have it. `is_administration`: the caller is
    looked up in the database at every request, and the requests count against IOTISTICA_ADMIN_LIMIT.
    """

    minimum_role: Role
    agents: bool = False
    api_keys: bool = True
    is_administration: bool = False


PUBLIC: Final = "public"
"""Everyone, without credentials."""
AGENT: Final = "agent"
"""Only the agent whose uuid is in the path."""
BROKER: Final = "broker"
"""A broker that sends the shared secret."""

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
    "alerts.read": Permission("viewer"),
    "alerts.acknowledge": Permission("operator"),
    "alerts.write": Permission("manager"),
    "alerts.targets": Permission("manager", api_keys=False),
    "logs.read": Permission("viewer"),
    "fleets.read": Permission("viewer"),
    "fleets.write": Permission("manager"),
    "dashboards.read": Permission("viewer"),
    "dashboards.write": Permission("viewer"),
    "dashboards.share": Permission("operator"),
    "mqtt.read": Permission("operator"),
    "mqtt.manage": Permission("admin", api_keys=False, is_administration=True),
    "provisioning.manage": Permission("admin", api_keys=False, is_administration=True),
    "users.manage": Permission("admin", api_keys=False, is_administration=True),
    "keys.manage": Permission("admin", api_keys=False, is_administration=True),
    "audit.read": Permission("admin", is_administration=True),
}


def is_at_least(role: str, minimum_role: str) -> bool:
    """Whether `role` is `minimum_role` or above it."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(minimum_role)


def is_allowed(permission: str, role: str, scopes: Collection[str] | None = None) -> bool:
    """Whether a role has the permission and, for an API key with scopes, whether the scopes include it."""
    rule = PERMISSIONS.get(permission)
    return rule is not None and is_at_least(role, rule.minimum_role) and (scopes is None or permission in scopes)
