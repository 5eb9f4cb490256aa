"""The roles of a process, and the task groups that each role runs."""

from collections.abc import Sequence
from typing import Final

from iotistica.errors import CannotStart

GROUPS: Final = ("http", "mqtt", "ingest", "background")
ROLES: Final = {
    "api": ("http", "mqtt", "background"),
    "ingest": ("ingest",),
    "http": ("http",),
    "mqtt": ("mqtt",),
    "background": ("background",),
}


def groups_of(roles: Sequence[str]) -> list[str]:
    """Return the groups of these roles, all groups for no roles; raises `CannotStart` for an unknown role."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise CannotStart(f"Unknown role {unknown[0]!r}. Use one or more of {', '.join(ROLES)}.")
    wanted = {group for role in roles for group in ROLES[role]} or set(GROUPS)
    return [group for group in GROUPS if group in wanted]
