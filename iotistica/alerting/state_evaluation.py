"""Judges what is known of agents and of the platform: statuses, failed jobs, refused messages and alarms."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from iotistica.alerting.watch import ALARM, JOB, REFUSED, STATUS, Watch
from iotistica.alerting.watched import Holder, SeriesRule, us
from iotistica.domain.alerts import rule_states
from iotistica.domain.alerts.conditions import AgentStatus, FailedJob, PlatformAlarm, RefusedMessages
from iotistica.domain.alerts.rule_states import Judged, Outcome, Turn
from iotistica.storage.alerts import state_findings
from iotistica.storage.postgres import Tx


class StateTurn(NamedTuple):
    holder: Holder
    name: str
    rule: SeriesRule
    turn: Turn
    details: dict[str, Any]


class _Finding(NamedTuple):
    """What is found of a subject now: since when, and what to show."""

    since: datetime
    value: float | None
    details: dict[str, Any]


async def judge(tx: Tx, watch: Watch, alarms: Mapping[str, str], now: datetime) -> list[StateTurn]:
    """Advance the rules about agents and the platform by what is known now."""
    return [
        *await _judge_statuses(tx, watch, now),
        *await _judge_jobs(tx, watch, now),
        *await _judge_refusals(tx, watch, now),
        *_judge_alarms(watch, alarms, now),
    ]


async def _judge_statuses(tx: Tx, watch: Watch, now: datetime) -> list[StateTurn]:
    tenants = watch.tenants_with(AgentStatus)
    if not tenants:
        return []
    turns: list[StateTurn] = []
    for row in await state_findings.statuses(tx, tenants):
        holder = watch.agents.get(row.agent_uuid)
        if holder is None:
            continue
        for rule in watch.rules_of(holder, STATUS, AgentStatus):
            condition = rule.rule.definition.condition
            assert isinstance(condition, AgentStatus)  # noqa: S101 only these were asked for
            details = {"status": row.status, "since": row.since}
            if row.flapping:
                continue  # neither gone nor back
            found = _Finding(row.since, None, details) if row.status in condition.statuses else None
            turns += _advance(holder, STATUS, rule, found, now)
    return turns


async def _judge_jobs(tx: Tx, watch: Watch, now: datetime) -> list[StateTurn]:
    tenants = watch.tenants_with(FailedJob)
    if not tenants:
        return []
    longest = max(
        rule.definition.condition.window_seconds
        for rule in watch.rules
        if isinstance(rule.definition.condition, FailedJob)
    )
    failed: dict[UUID, dict[str, state_findings.JobFinding]] = {}
    for row in await state_findings.failed_jobs(tx, tenants, now - timedelta(seconds=longest)):
        failed.setdefault(row.agent_uuid, {})[f"{JOB}{row.job_id}"] = row
    turns: list[StateTurn] = []
    for agent, holder in watch.agents.items():
        jobs = failed.get(agent, {})
        for name in {*jobs, *(name for name in holder.about if name.startswith(JOB))}:
            for rule in watch.rules_of(holder, name, FailedJob):
                condition, job = rule.rule.definition.condition, jobs.get(name)
                assert isinstance(condition, FailedJob)  # noqa: S101 only these were asked for
                found = None
                if (
                    job is not None
                    and job.status in condition.statuses
                    and now - job.since < timedelta(seconds=condition.window_seconds)
                ):
                    details = {
                        "job": job.job_id,
                        "jobName": job.job_name,
                        "status": job.status,
                        "reason": job.reason,
                    }
                    found = _Finding(job.since, None, details)
                turns += _advance(holder, name, rule, found, now)
    return turns


async def _judge_refusals(tx: Tx, watch: Watch, now: datetime) -> list[StateTurn]:
    tenants = watch.tenants_with(RefusedMessages)
    if not tenants:
        return []
    longest = max(
        rule.definition.condition.window_seconds
        for rule in watch.rules
        if isinstance(rule.definition.condition, RefusedMessages)
    )
    refused: dict[UUID, list[state_findings.RefusalFinding]] = {}
    for row in await state_findings.refusals(tx, tenants, now - timedelta(seconds=longest)):
        refused.setdefault(row.agent_uuid, []).append(row)
    turns: list[StateTurn] = []
    for agent, holder in watch.agents.items():
        rows = refused.get(agent, [])
        if not rows and REFUSED not in holder.about:
            continue
        for rule in watch.rules_of(holder, REFUSED, RefusedMessages):
            condition = rule.rule.definition.condition
            assert isinstance(condition, RefusedMessages)  # noqa: S101 only these were asked for
            since = now - timedelta(seconds=condition.window_seconds)
            recent = [row for row in rows if row.at >= since]
            times = sum(row.times for row in recent)
            found = None
            if times >= condition.count:
                found = _Finding(min(row.at for row in recent), float(times), {"count": times})
            turns += _advance(holder, REFUSED, rule, found, now)
    return turns


def _judge_alarms(watch: Watch, alarms: Mapping[str, str], now: datetime) -> list[StateTurn]:
    turns: list[StateTurn] = []
    for tenant in watch.tenants_with(PlatformAlarm):
        holder = watch.platform[tenant]
        for name in {*(f"{ALARM}{alarm}" for alarm in alarms), *holder.about}:
            text = alarms.get(name.removeprefix(ALARM))  # not shown: it can be about another tenant
            for rule in watch.rules_of(holder, name, PlatformAlarm):
                found = (
                    None
                    if text is None
                    else _Finding(now, None, {"help": "see /health and the log of the platform"})
                )
                turns += _advance(holder, name, rule, found, now)
    return turns


def _advance(
    holder: Holder, name: str, rule: SeriesRule, found: _Finding | None, now: datetime
) -> Iterable[StateTurn]:
    """Advance a rule by what is found of a subject now, or by nothing having been found."""
    before = rule.state.pending, rule.state.firing
    if found is not None and not rule.state.pending:
        rule.state.pending = us(found.since)
    judged = Judged(us(now), (found.value or 0.0) if found else 0.0, Outcome.OUT if found else Outcome.BACK)
    turns = rule_states.advance(rule.state, (judged,), hold=rule.hold, current_from=0)
    holder.is_dirty |= before != (rule.state.pending, rule.state.firing)
    return [
        StateTurn(
            holder, name, rule, turn._replace(value=found.value if found else None), found.details if found else {}
        )
        for turn in turns
    ]
