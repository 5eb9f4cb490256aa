"""Roles: what a process is started for, and the task groups that each stands for."""

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
    """The groups that these roles stand for; none means all. Raises `CannotStart`."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise CannotStart(f"unknown role {unknown[0]!r}; there are {', '.join(ROLES)}")
    wanted = {group for role in roles for group in ROLES[role]} or set(GROUPS)
    return [group for group in GROUPS if group in wanted]
