"""Writes the notices of incidents that were opened, escalated or resolved, for every target that must be told."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

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
from iotistica.storage.alerts.notices import NewNotice
from iotistica.storage.postgres import Tx

MESSAGES_AN_HOUR: Final = 1000  # of a tenant, unless its quota says otherwise; further ones wait for an hour


class Announcer:
    """Tells the targets of all tenants; `site_url` begins the links in messages, which have none without it."""

    def __init__(self, box: SecretBox, site_url: str) -> None:
        self._box = box
        self._site_url = site_url.rstrip("/")

    async def run(self, tx: Tx, now: datetime) -> None:
        """Write the notices that are due at this moment.

        Each is written with the mark that it was, so that nothing is told twice or not at all.
        """
        opened, ended = await announcements.untold(tx), await announcements.end_untold(tx)
        escalating = await announcements.escalating(tx, now)
        if not (opened or ended or escalating):
            return
        tenants = announcements.tenants_of([*opened, *ended, *escalating])
        known = await self._targets(tx, tenants)
        policies = {policy.policy_id: policy for policy in await escalations.of_tenants(tx, tenants)}
        silent = await silences.active(tx, tenants, now)
        for incident in opened:
            about = await announcements.members(tx, incident.tenant_id, incident.incident_id)
            if not _is_silent(incident, about, silent):
                await self._tell_opened(tx, incident, about, known, policies, now)
        for incident in escalating:
            about = await announcements.members(tx, incident.tenant_id, incident.incident_id)
            if not _is_silent(incident, about, silent):
                await self._tell_escalated(tx, incident, about, known, policies, now)
        for incident in ended:
            await self._tell_ended(tx, incident, known, now)

    async def _targets(self, tx: Tx, tenants: Sequence[TenantId]) -> dict[TenantId, dict[UUID, TargetSpec]]:
        known: dict[TenantId, dict[UUID, TargetSpec]] = {}
        for target in await targets.enabled(tx, tenants):
            spec = target.open(self._box)
            if spec is not None:
                known.setdefault(target.tenant_id, {})[target.target_id] = spec
        return known

    async def _tell_opened(
        self,
        tx: Tx,
        incident: Announced,
        about: Sequence[AboutMember],
        known: Mapping[TenantId, Mapping[UUID, TargetSpec]],
        policies: Mapping[UUID, Policy],
        now: datetime,
    ) -> None:
        tenant, labels = incident.tenant_id, {**(about[0].tags if about else {}), **incident.rule_labels}
        facts = self._facts("opened", incident, about, labels, now)
        told = []
        for id_, spec in known.get(tenant, {}).items():
            if incident.rule_targets:
                due_at = now if id_ in incident.rule_targets else None
            else:
                due_at = routing.when_told(spec, incident.severity, labels, now)
            if due_at is not None:
                await self._add(tx, tenant, facts, id_, spec, due_at, now)
                told.append(id_)
        steps = steps_.chain(incident.policy_id, policies)
        escalates_at = now + timedelta(seconds=steps[0].after_seconds) if steps else None
        await announcements.mark_told(
            tx, tenant, incident.incident_id, now, labels=labels, escalates_at=escalates_at
        )
        await incident_history.add(
            tx, tenant, incident.incident_id, "told", at=now, details={"targets": [str(id_) for id_ in told]}
        )

    async def _tell_escalated(
        self,
        tx: Tx,
        incident: Announced,
        about: Sequence[AboutMember],
        known: Mapping[TenantId, Mapping[UUID, TargetSpec]],
        policies: Mapping[UUID, Policy],
        now: datetime,
    ) -> None:
        tenant, id_ = incident.tenant_id, incident.incident_id
        step = steps_.due(steps_.chain(incident.policy_id, policies), incident.escalation_steps, now)
        if step is None:
            await announcements.mark_escalated(tx, tenant, id_, now, steps=incident.escalation_steps, next_at=None)
            return
        facts = self._facts("escalated", incident, about, incident.labels, now)
        told = [target for target in step.targets if target in known.get(tenant, {})]
        for target in told:
            await self._add(tx, tenant, facts, target, known[tenant][target], now, now, step=step.number)
        await announcements.mark_escalated(tx, tenant, id_, now, steps=step.number, next_at=step.next_at)
        details = {"step": step.number, "targets": [str(target) for target in told]}
        await incident_history.add(tx, tenant, id_, "escalated", at=now, details=details)

    async def _tell_ended(
        self, tx: Tx, incident: Announced, known: Mapping[TenantId, Mapping[UUID, TargetSpec]], now: datetime
    ) -> None:
        tenant, id_ = incident.tenant_id, incident.incident_id
        about = await announcements.members(tx, tenant, id_)
        facts = self._facts("resolved", incident, about, incident.labels, now)
        for told in await notices.told(tx, tenant, id_, now):
            spec = known.get(tenant, {}).get(told.target_id)
            if told.waits:  # in a route's quiet hours: what has begun and ended within them is not told
                await notices.cancel_waiting(tx, tenant, id_, now, target=told.target_id, reason="it has ended")
            elif spec is not None and not told.failed:
                await self._add(tx, tenant, facts, told.target_id, spec, now, now)
        await notices.cancel_waiting(tx, tenant, id_, now, target=None, reason="it has ended")
        await announcements.mark_end_told(tx, tenant, id_, now)

    async def _add(
        self,
        tx: Tx,
        tenant: TenantId,
        facts: NoticeFacts,
        target: UUID,
        spec: TargetSpec,
        due_at: datetime,
        now: datetime,
        *,
        step: int = 0,
    ) -> None:
        quota = (await quotas.get(tx, tenant)).alert_messages_hour
        if await notices.count_of_hour(tx, tenant, now) >= (MESSAGES_AN_HOUR if quota is None else quota):
            due_at = max(due_at, now + timedelta(hours=1))
        notice = NewNotice(
            incident=facts.incident_id,
            target=target,
            kind=facts.kind,
            step=step,
            facts=facts,
            due_at=due_at,
            expires_at=due_at + timedelta(seconds=spec.give_up_after_seconds),
        )
        await notices.add(tx, tenant, notice, now)

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


def _is_silent(incident: Announced, about: Sequence[AboutMember], known: Sequence[silences.Silence]) -> bool:
    """Whether a silence of the tenant covers all that is active of an incident."""
    active = [(member.agent, member.metric_name) for member in about if member.is_active]
    return any(
        silence.tenant_id == incident.tenant_id
        and rules.covers(silence.matches, incident.rule_id, incident.severity, active)
        for silence in known
    )
