"""Writes the notices of incidents that were opened, escalated or resolved, for every target that must be told."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.alerts import escalations as steps_
from iotistica.domain.alerts import silences as rules
from iotistica.domain.alerts import targets as routing
from iotistica.domain.alerts.escalations import Policy
from iotistica.domain.alerts.notices import SHOWN, AboutFacts, Kind, NoticeFacts
from iotistica.domain.alerts.targets import TargetSpec
from iotistica.domain.ids import TenantId
from iotistica.storage.access import quotas
from iotistica.storage.alerts import announcements, escalations, incident_history, notices, silences, targets
from iotistica.storage.alerts.announcements import AboutMember, Announced
from iotistica.storage.alerts.notices import Recipient
from iotistica.storage.alerts.silences import Silence
from iotistica.storage.postgres import Tx

MESSAGES_AN_HOUR: Final = 1000  # of a tenant, unless its quota says otherwise; further ones wait for an hour
NOTICES_A_RUN: Final = 500  # of a tenant; what is left is told by the next run
LOOK_AGAIN: Final = timedelta(seconds=10)
"""How soon a silent incident is looked at again: a silence can be ended, and what it covers can change."""
LABELS: Final = 100  # different labels of the members of one incident that targets choose by


class _Knowledge(msgspec.Struct, frozen=True, kw_only=True):
    """What decides who is told: targets, policies and silences of the tenants in question."""

    targets: Mapping[TenantId, Mapping[UUID, TargetSpec]]
    policies: Mapping[UUID, Policy]
    silences: Sequence[Silence]
    written: dict[TenantId, int] = {}
    """Notices that this run has written."""
    within_hour: dict[TenantId, int] = {}
    limits: dict[TenantId, int] = {}

    def is_done(self, tenant: TenantId) -> bool:
        """Whether a tenant has had its share of this run."""
        return self.written.get(tenant, 0) >= NOTICES_A_RUN


class Announcer:
    """Tells the targets of all tenants; `site_url` begins the links in messages, which have none without it."""

    def __init__(self, box: SecretBox, site_url: str) -> None:
        self._box = box
        self._site_url = site_url.rstrip("/")

    async def run(self, tx: Tx, now: datetime) -> None:
        """Write the notices that are due at this moment.

        Each is written with the mark that it was, so that nothing is told twice or not at all.
        """
        opened, ended = await announcements.untold(tx, now), await announcements.end_untold(tx)
        escalating = await announcements.escalating(tx, now)
        if not (opened or ended or escalating):
            return
        known = await self._know(tx, announcements.tenants_of([*opened, *ended, *escalating]), now)
        for tell, incidents in (
            (self._tell_opened, opened),
            (self._tell_escalated, escalating),
            (self._tell_ended, ended),
        ):
            for incident in incidents:
                if known.is_done(incident.tenant_id):
                    continue
                about = await announcements.members(tx, incident.tenant_id, incident.incident_id)
                await tell(tx, incident, about, known, now)

    async def _know(self, tx: Tx, tenants: Sequence[TenantId], now: datetime) -> _Knowledge:
        known: dict[TenantId, dict[UUID, TargetSpec]] = {}
        for target in await targets.enabled(tx, tenants):
            spec = target.open(self._box)
            if spec is not None:
                known.setdefault(target.tenant_id, {})[target.target_id] = spec
        policies = {policy.policy_id: policy for policy in await escalations.of_tenants(tx, tenants)}
        return _Knowledge(targets=known, policies=policies, silences=await silences.active(tx, tenants, now))

    async def _tell_opened(
        self, tx: Tx, incident: Announced, about: Sequence[AboutMember], known: _Knowledge, now: datetime
    ) -> None:
        """Tell the targets that fit an incident; those that were told before are not told again."""
        tenant, id_ = incident.tenant_id, incident.incident_id
        if (until := _silent_until(incident, about, known.silences)) is not None:
            await announcements.look_again(tx, tenant, id_, min(until, now + LOOK_AGAIN))
            return
        labels = _labels(incident, about)
        facts = self._facts("opened", incident, about, labels[0], now)
        own = [target for target in incident.rule_targets if target in known.targets.get(tenant, {})]
        recipients = []
        for target, spec in known.targets.get(tenant, {}).items():
            if own:
                due_at = now if target in own else None
            else:
                moments = [routing.when_told(spec, incident.severity, each, now) for each in labels]
                due_at = min((moment for moment in moments if moment is not None), default=None)
            if due_at is not None:
                recipients.append(Recipient(target, due_at, spec.give_up_after_seconds))
        told = await self._write(tx, tenant, facts, recipients, known, now)
        steps = steps_.chain(incident.policy_id, known.policies)
        escalates_at = now + timedelta(seconds=steps[0].after_seconds) if steps else None
        await announcements.mark_told(tx, tenant, id_, now, labels=labels[0], escalates_at=escalates_at)
        if told or incident.told_at is None:
            await incident_history.add(tx, tenant, id_, "told", at=now, details={"messages": told})

    async def _tell_escalated(
        self, tx: Tx, incident: Announced, about: Sequence[AboutMember], known: _Knowledge, now: datetime
    ) -> None:
        tenant, id_ = incident.tenant_id, incident.incident_id
        if (until := _silent_until(incident, about, known.silences)) is not None:
            await announcements.look_again(tx, tenant, id_, min(until, now + LOOK_AGAIN))
            return
        step = steps_.due(steps_.chain(incident.policy_id, known.policies), incident.escalation_steps, now)
        if step is None:
            await announcements.mark_escalated(tx, tenant, id_, now, steps=incident.escalation_steps, next_at=None)
            return
        facts = self._facts("escalated", incident, about, incident.labels, now)
        recipients = [
            Recipient(target, now, known.targets[tenant][target].give_up_after_seconds)
            for target in step.targets
            if target in known.targets.get(tenant, {})
        ]
        told = await self._write(tx, tenant, facts, recipients, known, now, step=step.number)
        await announcements.mark_escalated(tx, tenant, id_, now, steps=step.number, next_at=step.next_at)
        details = {"step": step.number, "messages": told}
        await incident_history.add(tx, tenant, id_, "escalated", at=now, details=details)

    async def _tell_ended(
        self, tx: Tx, incident: Announced, about: Sequence[AboutMember], known: _Knowledge, now: datetime
    ) -> None:
        tenant, id_ = incident.tenant_id, incident.incident_id
        facts = self._facts("resolved", incident, about, incident.labels, now)
        recipients = []
        for told in await notices.told(tx, tenant, id_, now):
            spec = known.targets.get(tenant, {}).get(told.target_id)
            # What has begun and ended in the quiet hours of a route is not told.
            if spec is not None and not told.waits and not told.failed:
                recipients.append(Recipient(told.target_id, now, spec.give_up_after_seconds))
        await notices.cancel_waiting(tx, tenant, id_, now, reason="it has ended")
        await self._write(tx, tenant, facts, recipients, known, now)
        await announcements.mark_end_told(tx, tenant, id_, now)

    async def _write(
        self,
        tx: Tx,
        tenant: TenantId,
        facts: NoticeFacts,
        recipients: Sequence[Recipient],
        known: _Knowledge,
        now: datetime,
        *,
        step: int = 0,
    ) -> list[str]:
        """Write notices, those above the tenant's quota for an hour later; return their ids."""
        if tenant not in known.limits:
            quota = (await quotas.get(tx, tenant)).alert_messages_hour
            known.limits[tenant] = MESSAGES_AN_HOUR if quota is None else quota
            known.within_hour[tenant] = await notices.count_of_hour(tx, tenant, now)
        left = max(known.limits[tenant] - known.within_hour[tenant], 0)
        later = [
            recipient._replace(due_at=max(recipient.due_at, now + timedelta(hours=1)))
            for recipient in recipients[left:]
        ]
        written = await notices.add(
            tx, tenant, facts, [*recipients[:left], *later], now, incident=facts.incident_id, step=step
        )
        known.written[tenant] = known.written.get(tenant, 0) + len(written)
        known.within_hour[tenant] += len(written)
        return written

    def _facts(
        self,
        kind: Kind,
        incident: Announced,
        about: Sequence[AboutMember],
        labels: Mapping[str, str],
        now: datetime,
    ) -> NoticeFacts:
        return NoticeFacts(
            kind=kind,
            incident_id=incident.incident_id,
            title=incident.title,
            severity=incident.severity,
            status=incident.status,
            rule_id=incident.rule_id,
            opened_at=incident.opened_at,
            resolved_at=incident.resolved_at,
            at=now,
            members=incident.members,
            active_members=incident.active_members,
            labels=dict(labels),
            about=[
                AboutFacts(
                    agent_uuid=member.agent_uuid,
                    agent_name=member.agent_name,
                    metric_name=member.metric_name,
                    value=member.value,
                    since=member.since,
                    bound=member.bound,
                )
                for member in about[:SHOWN]
            ],
            url=f"{self._site_url}/incidents/{incident.incident_id}" if self._site_url else "",
        )


def _labels(incident: Announced, about: Sequence[AboutMember]) -> list[dict[str, str]]:
    """Return the labels of the active members, at least one: the tags of their agents, and those of the rule."""
    found: list[dict[str, str]] = []
    for member in about:
        labels = {**member.tags, **incident.rule_labels}
        if member.is_active and labels not in found and len(found) < LABELS:
            found.append(labels)
    return found or [dict(incident.rule_labels)]


def _silent_until(incident: Announced, about: Sequence[AboutMember], known: Sequence[Silence]) -> datetime | None:
    """Return the end of a silence that covers all that is active of an incident; None if there is none."""
    active = [(member.agent, member.metric_name) for member in about if member.is_active]
    return max(
        (
            silence.ends_at
            for silence in known
            if silence.tenant_id == incident.tenant_id
            and rules.covers(silence.matches, incident.rule_id, incident.severity, active)
        ),
        default=None,
    )
