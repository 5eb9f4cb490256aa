"""Whose target a route is about: that of an agent or that of a fleet."""

from uuid import UUID

from litestar.di import NamedDependency
from litestar.params import FromPath

from iotistica.storage.control.targets import TargetOwner

OwnerDep = NamedDependency[TargetOwner]


async def agent_owner(subject: FromPath[UUID]) -> TargetOwner:
    """The agent of the path."""
    return TargetOwner("agent", subject)


async def fleet_owner(subject: FromPath[UUID]) -> TargetOwner:
    """The fleet of the path."""
    return TargetOwner("fleet", subject)
