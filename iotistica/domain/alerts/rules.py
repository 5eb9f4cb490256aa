"""Alert rules: what they watch, when they fire, and what is checked before one is stored."""

import math
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from iotistica.domain.agents import tag_selectors
from iotistica.domain.alerts import schedules, scopes
from iotistica.domain.alerts.conditions import (
    Absence,
    AgentStatus,
    Bounds,
    Comparison,
    Condition,
    FailedJob,
    LearnedAnomaly,
    PlatformAlarm,
    RateOfChange,
    RefusedMessages,
    Seconds,
    StuckValue,
    Threshold,
)
from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.schedules import Schedule
from iotistica.domain.alerts.scopes import Pattern, Scope
from iotistica.domain.ids import TenantId
from iotistica.domain.names import clean_name
from iotistica.errors import Invalid

Grouping = Literal["series", "agent", "rule"]

BOUNDED: Final = (Threshold, RateOfChange, Comparison)
"""Conditions that have bounds, which can differ by agent and device."""
STATE_CONDITIONS: Final = (AgentStatus, FailedJob, RefusedMessages, PlatformAlarm)
LABELS_LIMIT: Final = 20  # labels of a rule


class Limit(Bounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other bounds for some agents or devices."""

    agent: UUID | None = None
    tags: Annotated[str, Meta(max_length=tag_selectors.SELECTOR_LENGTH)] | None = None
    device: Pattern | None = None

    @property
    def scope(self) -> Scope:
        return Scope(agent=self.agent, tags=self.tags, device=self.device)


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """When a rule fires and how it behaves, as it is written and stored; its name and severity stand beside it."""

    condition: Condition
    scope: Scope = Scope()
    for_seconds: Seconds = 0.0
    """How long the condition must hold, by the measured times of its readings."""
    cooldown_seconds: Seconds = 0.0
    """How long after an incident has ended no other is opened; what fires then still is told once it is over."""
    limits: Annotated[tuple[Limit, ...], Meta(max_length=100)] = ()
    """Bounds for some agents or devices instead of those of the condition; the first that fits counts."""
    active: Schedule | None = None
    """The hours in which the rule can open incidents; always unless given."""
    maintenance: Schedule | None = None
    """The hours in which it opens none."""
    group_by: Grouping | None = None
    """What one incident is about; see `grouping`."""
    max_age_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """How old a reading can be when it is stored to open or end an incident; older ones are history."""
    labels: Annotated[dict[str, str], Meta(max_length=LABELS_LIMIT)] = {}
    """Labels of the incidents, by which they are routed to targets."""
    targets: Annotated[tuple[UUID, ...], Meta(max_length=20)] = ()
    """The targets that are told of its incidents, whatever their routes say; by their routes if none is named."""
    escalation: UUID | None = None
    """The policy that says who is told while nobody acknowledges an incident."""

    @property
    def grouping(self) -> Grouping:
        """What one incident is about: all that breaks down within a minute, or one series."""
        together = isinstance(self.condition, (Absence, *STATE_CONDITIONS))
        return self.group_by or ("rule" if together else "series")

    def check(self) -> None:
        """Raise `Invalid` with the path of a field that contradicts another or means nothing."""
        condition = self.condition
        self.scope.check("scope")
        if isinstance(condition, Bounds):
            condition.check("condition")
        if isinstance(condition, Comparison) and clean_name(condition.other) != condition.other:
            raise Invalid("must be a name as series have them: composed, on one line", "condition.other")
        if isinstance(condition, (Absence, StuckValue)) and self.for_seconds <= 0:
            raise Invalid("must be more than 0 for this kind of condition", "forSeconds")
        if isinstance(condition, LearnedAnomaly) and self.for_seconds > 0:
            raise Invalid("must be 0: an anomaly is a moment; calmSeconds says when it is over", "forSeconds")
        if isinstance(condition, STATE_CONDITIONS) and (self.scope.series or self.scope.device):
            raise Invalid("must not name series or devices: this condition is about agents", "scope")
        if isinstance(condition, PlatformAlarm) and self.scope != Scope():
            raise Invalid("must be absent: alarms of the platform are not about agents", "scope")
        if self.limits and not isinstance(condition, BOUNDED):
            raise Invalid("must be absent: this kind of condition has no bounds", "limits")
        for number, limit in enumerate(self.limits):
            limit.check(f"limits[{number}]")
            limit.scope.check(f"limits[{number}]")
            if limit.agent is None and limit.tags is None and limit.device is None:
                raise Invalid("must name an agent, tags or a device", f"limits[{number}]")
        for name, schedule in (("active", self.active), ("maintenance", self.maintenance)):
            if schedule is not None:
                schedule.check(name)
        for key, value in self.labels.items():
            try:
                tag_selectors.checked_tags({key: value})
            except Invalid as exc:
                raise Invalid(str(exc), f"labels.{key[:63]}") from None
        if not math.isfinite(self.for_seconds):
            raise Invalid("must be finite", "forSeconds")

    def may_open(self, now: datetime) -> bool:
        """Whether an incident can be opened at a moment: in the active hours, and not in those of maintenance."""
        return (self.active is None or schedules.covers(self.active, now)) and (
            self.maintenance is None or not schedules.covers(self.maintenance, now)
        )

    def bounds_for(self, agent: scopes.AgentFacts, device: str | None) -> Bounds | None:
        """Return the bounds that count for a device of an agent; None if the condition has none."""
        if not isinstance(self.condition, Bounds):
            return None
        for limit in self.limits:
            if scopes.has_agent(limit.scope, agent) and scopes.has_series(limit.scope, "", "", device):
                return limit
        return self.condition


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A stored rule."""

    rule_id: UUID
    tenant_id: TenantId
    name: str
    severity: Severity
    generation: int
    """Increases when the rule is enabled again, and when its condition becomes another kind."""
    definition: RuleSpec
    is_new: bool = False
    """Whether this generation has not been applied yet: readings of series that others watch may have passed it."""

    @property
    def cause(self) -> str:
        """Identifies what opens an incident."""
        return str(self.rule_id)

    @property
    def state_key(self) -> bytes:
        """Identifies what the rule remembers: that of an earlier generation is forgotten."""
        return self.rule_id.bytes + self.generation.to_bytes(4)
