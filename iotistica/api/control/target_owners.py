"""Dependencies that provide the owner of a target: the agent or the fleet of the path."""

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
