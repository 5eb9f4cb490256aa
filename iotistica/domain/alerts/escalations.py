"""Escalation policies: who else is told while nobody acknowledges an incident."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta

from iotistica.errors import Invalid

STEPS_LIMIT: Final = 50  # steps of a policy and those that continue it


class Step(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Targets that are told so long after the step before, or after the incident was told first."""

    after_seconds: Annotated[float, Meta(ge=10, le=7 * 86_400)]
    targets: Annotated[tuple[UUID, ...], Meta(min_length=1, max_length=20)]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A stored policy; `next_id` is the policy that continues after its last step."""

    policy_id: UUID
    name: str
    steps: tuple[Step, ...]
    next_id: UUID | None


class DueStep(NamedTuple):
    number: int
    """The number of the step, from 1."""
    targets: tuple[UUID, ...]
    next_at: datetime | None
    """When the step after it is due; None after the last."""


def chain(policy: UUID | None, policies: Mapping[UUID, Policy]) -> list[Step]:
    """Return the steps of a policy and of those that continue it, at most `STEPS_LIMIT`."""
    steps: list[Step] = []
    seen: set[UUID] = set()
    while policy is not None and policy in policies and policy not in seen and len(steps) < STEPS_LIMIT:
        seen.add(policy)
        steps += policies[policy].steps
        policy = policies[policy].next_id
    return steps[:STEPS_LIMIT]


def check_chain(id_: UUID, name: str, next_id: UUID | None, policies: Mapping[UUID, Policy], path: str) -> None:
    """Raise `Invalid` if a policy continues with one that does not exist, or in a circle."""
    names = {id_: name}
    while next_id is not None:
        if next_id in names:
            raise Invalid(f"must not continue in a circle: {' → '.join([*names.values(), names[next_id]])}", path)
        if next_id not in policies:
            raise Invalid("must be the id of an existing escalation policy", path)
        names[next_id] = policies[next_id].name
        next_id = policies[next_id].next_id


def due(steps: Sequence[Step], taken: int, now: datetime) -> DueStep | None:
    """Return the step after those that were taken; None if there is none. It is due `now`."""
    if taken >= len(steps):
        return None
    after = steps[taken + 1].after_seconds if taken + 1 < len(steps) else None
    return DueStep(taken + 1, steps[taken].targets, None if after is None else now + timedelta(seconds=after))
