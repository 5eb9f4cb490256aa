"""Incidents, their members and their history as the API shows them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.incidents import Status
from iotistica.storage.alerts.incident_search import Member, MemberSample
from iotistica.storage.alerts.incidents import Incident


class MemberView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A series, an agent or an alarm that the incident is about."""

    agent_uuid: UUID | None
    agent_name: str | None
    metric_name: str
    value: float | None
    is_active: bool


class MemberDetails(MemberView, frozen=True, kw_only=True):
    opened_at: datetime
    since: datetime
    """Since when the condition held, by measured time."""
    ended_at: datetime | None
    times: int
    """How often it was seen, for events of agents."""
    evidence: dict[str, Any]
    """The bound that was crossed or what was expected, and the values before."""


class HistoryView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    at: datetime
    kind: str
    author: dict[str, Any] | None
    """None for what the platform did."""
    note: str | None
    details: dict[str, Any]


class IncidentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    incident_id: UUID
    title: str
    severity: Severity
    status: Status
    rule_id: UUID | None
    """None for events of agents, and if the rule was deleted."""
    cause: str
    """The id of the rule, or the fingerprint of an agent's events."""
    opened_at: datetime
    grown_at: datetime
    """When a member was added last."""
    acknowledged_at: datetime | None
    acknowledged_by: dict[str, Any] | None
    resolved_at: datetime | None
    resolved_by: dict[str, Any] | None
    members: int
    active_members: int
    about: list[MemberView]
    """The first members, those that have not ended before the others."""


class IncidentDetails(IncidentView, frozen=True, kw_only=True):
    details: list[MemberDetails]
    history: list[HistoryView]


class Incidents(msgspec.Struct, frozen=True, kw_only=True):
    incidents: list[IncidentView]
    count: int
    total: int
    next: str | None
    """Pass it as `cursor` to get older incidents; null on the last page."""


class Members(msgspec.Struct, frozen=True, kw_only=True):
    members: list[MemberDetails]
    count: int
    total: int
    next: str | None


def view(incident: Incident, about: list[MemberSample]) -> IncidentView:
    """Return an incident with its first members."""
    return IncidentView(
        **msgspec.structs.asdict(incident),
        about=[
            MemberView(
                agent_uuid=member.agent_uuid,
                agent_name=member.agent_name,
                metric_name=member.metric_name,
                value=member.value,
                is_active=not member.ended,
            )
            for member in about
        ],
    )


def sample(incident: UUID, member: Member) -> MemberSample:
    """Return what a list shows of a member."""
    return MemberSample(
        incident_id=incident,
        agent_uuid=member.agent_uuid,
        agent_name=member.agent_name,
        metric_name=member.metric_name,
        value=member.value,
        ended=member.ended_at is not None,
    )


def details(member: Member) -> MemberDetails:
    """Return a member with its evidence."""
    return MemberDetails(
        agent_uuid=member.agent_uuid,
        agent_name=member.agent_name,
        metric_name=member.metric_name,
        value=member.value,
        is_active=member.ended_at is None,
        opened_at=member.opened_at,
        since=member.since,
        ended_at=member.ended_at,
        times=member.times,
        evidence=member.details,
    )
