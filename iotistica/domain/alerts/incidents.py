"""Incidents: what they are about, how they change, and which of those that begin together become one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.rules import Grouping

Status = Literal["open", "acknowledged", "resolved"]

TOGETHER: Final = timedelta(seconds=60)
"""What begins within this time after an incident has begun or grown can become a part of it."""
COMES_BACK: Final = timedelta(hours=1)
"""A member that has ended and begins anew within this time belongs to the incident that it was a part of."""
STORM: Final = 5
"""Series that fire within `TOGETHER` become one incident from this many on, even if each would have its own."""


class Subject(NamedTuple):
    """What a member of an incident is about: a series, an agent, or the tenant as a whole if `agent` is None."""

    agent: UUID | None
    metric_name: str
    """Empty for an agent as a whole; the name of an alarm or a job for those."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What opens incidents: a rule, or events of agents with one fingerprint."""

    key: str
    rule_id: UUID | None
    title: str
    severity: Severity
    grouping: Grouping


class NewMember(msgspec.Struct, frozen=True, kw_only=True):
    """A subject for which a rule begins to fire."""

    subject: Subject
    since: datetime
    """Since when its condition holds."""
    value: float | None = None
    details: dict[str, Any] = {}
    """The evidence: the bound that was crossed, and the values around it."""
    ends_at: datetime | None = None
    """When it ends by itself, unless it is seen again; None if its condition tells."""


class OpenIncident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident of a cause that is not resolved."""

    incident_id: UUID
    grown_at: datetime
    agents: tuple[UUID | None, ...]
    members: int


class Placement(NamedTuple):
    """New members that go into one incident; into a new one if `incident` is None."""

    incident: UUID | None
    members: list[NewMember]


def place(
    members: Sequence[NewMember], opened: Sequence[OpenIncident], grouping: Grouping, now: datetime
) -> list[Placement]:
    """Return which incidents new members join, and which are opened for them.

    `opened` are the open incidents of the cause. A member joins one that began or grew within `TOGETHER`: any of
    the rule if all that happens together is one incident, one about the same agent if that is what incidents are
    about, and any again if so many series fire together that it is a storm.
    """
    recent = sorted(
        (incident for incident in opened if now - incident.grown_at <= TOGETHER), key=lambda i: i.grown_at
    )
    storm = len(members) + sum(incident.members for incident in recent) >= STORM
    if grouping == "rule" or storm:
        return [Placement(recent[-1].incident_id if recent else None, list(members))] if members else []
    if grouping == "series":
        return [Placement(None, [member]) for member in members]
    by_agent: dict[UUID | None, list[NewMember]] = {}
    for member in members:
        by_agent.setdefault(member.subject.agent, []).append(member)
    return [
        Placement(next((i.incident_id for i in reversed(recent) if agent in i.agents), None), group)
        for agent, group in by_agent.items()
    ]
