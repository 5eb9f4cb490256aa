"""Opens and resolves incidents for what rules found, in one transaction with what the rules remember."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from iotistica.domain.alerts.incidents import Cause, NewMember, Subject
from iotistica.domain.alerts.rules import Rule
from iotistica.domain.ids import TenantId
from iotistica.storage.alerts import incident_ends, incidents
from iotistica.storage.alerts.incidents import Incident
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Tx


class Transition(NamedTuple):
    """A rule begins to fire for a subject (`member`), or ceases to (`reason`)."""

    tenant: TenantId
    cause: Cause
    subject: Subject
    member: NewMember | None
    reason: str = ""


class Outcome(NamedTuple):
    """An incident that was opened or resolved."""

    tenant: TenantId
    incident: Incident
    kind: str


def cause_of(rule: Rule) -> Cause:
    """Return a rule as the cause of incidents."""
    return Cause(
        key=rule.cause,
        rule_id=rule.rule_id,
        title=rule.name,
        severity=rule.severity,
        grouping=rule.definition.grouping,
    )


async def apply(tx: Tx, transitions: Sequence[Transition], now: datetime) -> list[Outcome]:
    """Apply transitions; those of one subject in their order, and those of all subjects of a cause together.

    Together, because what fires at the same time may be one storm.
    """
    turns: dict[tuple[TenantId, str, Subject], int] = {}
    numbered = []
    for transition in transitions:
        key = transition.tenant, transition.cause.key, transition.subject
        turn = turns[key] = turns.get(key, -1) + 1
        numbered.append((turn, transition))
    numbered.sort(key=lambda row: (row[1].tenant, row[1].cause.key, row[0], row[1].member is None))
    await _add_to_timelines(tx, transitions, now)
    outcomes: list[Outcome] = []
    for (tenant, _, _, is_end), rows in groupby(
        numbered, key=lambda row: (row[1].tenant, row[1].cause.key, row[0], row[1].member is None)
    ):
        group = [transition for _, transition in rows]
        cause = group[0].cause
        if is_end:
            subjects = [transition.subject for transition in group]
            ended = await incident_ends.end_members(tx, tenant, cause.key, subjects, now, reason=group[0].reason)
            outcomes += [Outcome(tenant, incident, "resolved") for incident in ended]
        else:
            members = [transition.member for transition in group if transition.member is not None]
            opened = await incidents.open_members(tx, tenant, cause, members, now)
            outcomes += [Outcome(tenant, incident, "opened") for incident in opened]
    return outcomes


async def _add_to_timelines(tx: Tx, transitions: Sequence[Transition], now: datetime) -> None:
    """Add to the timelines of agents that rules began or ceased to fire for them or for a series of theirs."""
    events: dict[TenantId, list[TimelineEvent]] = {}
    for transition in transitions:
        agent, name = transition.subject
        if agent is None:
            continue
        cause, member = transition.cause, transition.member
        details: dict[str, Any] = {"rule": cause.title, "severity": cause.severity, "about": name}
        if member is not None and member.value is not None:
            details["value"] = member.value
        kind = "alert.ended" if member is None else "alert.began"
        events.setdefault(transition.tenant, []).append(
            TimelineEvent(agent=agent, at=now, kind=kind, details=details)
        )
    for tenant, rows in events.items():
        await timeline.add(tx, tenant, rows)
