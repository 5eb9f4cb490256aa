"""The progress of jobs: steps of their rollouts, notices to agents, and timeouts."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.background.periodic_task import PeriodicTask, for_each
from iotistica.domain.control import job_messages, rollouts
from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.rollouts import RolloutStep
from iotistica.domain.ids import TenantId, agent_topic
from iotistica.errors import Full
from iotistica.storage.agents.directory import Directory
from iotistica.storage.control import job_timeouts
from iotistica.storage.control import rollouts as table
from iotistica.storage.control.rollouts import JobNotice
from iotistica.storage.delivery import outbound, stream_stats
from iotistica.storage.delivery.outbound import OutboundMessage
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

EVERY: Final = 1.0  # seconds between steps
TIMEOUT_CHECK_SECONDS: Final = 5.0  # seconds between checks for timeouts, and for agents that are online again
MOST: Final = 20_000  # active jobs considered in one turn
BUDGET: Final = 1.0  # seconds of steps in one turn; the first job of every tenant comes before any second one
NOTICES: Final = 100  # notices in one transaction, each with its job document twice
PORTIONS: Final = 5  # transactions of notices in one turn
WAITING: Final = 2000  # messages of a tenant that wait for the broker; above this no notices are added


def tasks(redis: Redis, database: Database, directory: Directory) -> list[PeriodicTask]:
    """Return the periodic tasks for the jobs of every tenant."""
    # The tasks change the same rows: the lock runs them one after the other, so that they do not deadlock.
    turns, turn = TenantTurns(), asyncio.Lock()

    async def advance_jobs() -> None:
        async with turn:
            await for_each((step, notify_due), lambda work: work())

    async def step() -> None:
        await step_all(database, turns)

    async def notify_due() -> None:
        await _notify(redis, database, after_return=False)

    async def time_out() -> None:
        async with turn:
            await _time_out(database, await stream_stats.lagging(redis, sorted(await directory.tenants())))

    async def notify_after_return() -> None:
        async with turn:
            await _notify(redis, database, after_return=True)

    return [
        PeriodicTask("rollouts", EVERY, advance_jobs),
        PeriodicTask("job-timeouts", TIMEOUT_CHECK_SECONDS, time_out),
        PeriodicTask("job-notices-after-return", TIMEOUT_CHECK_SECONDS, notify_after_return),
    ]


class TenantTurns:
    """Orders jobs fairly: tenants take turns, and within a tenant the job with the oldest last step is first."""

    def __init__(self) -> None:
        self._stepped: dict[UUID, int] = {}
        self._count = 0

    def order(self, jobs: Iterable[tuple[UUID, TenantId]]) -> list[UUID]:
        """Return the jobs in the order of their next steps."""
        of: defaultdict[TenantId, list[UUID]] = defaultdict(list)
        for job, tenant in jobs:
            of[tenant].append(job)
        self._stepped = {job: self._stepped[job] for some in of.values() for job in some if job in self._stepped}
        lines = [sorted(some, key=self._last) for some in of.values()]
        rows = [[job for job in row if job is not None] for row in zip_longest(*lines)]
        return [job for row in rows for job in sorted(row, key=self._last)]

    def _last(self, job: UUID) -> int:
        return self._stepped.get(job, 0)

    def record_step(self, job: UUID) -> None:
        """Record that a job had its step."""
        self._count += 1
        self._stepped[job] = self._count


async def step_all(database: Database, turns: TenantTurns) -> None:
    """Do a step of as many jobs as fit into `BUDGET` seconds; raises `Unavailable`."""
    async with database.transaction() as tx:
        jobs = await table.active_jobs(tx, most=MOST)
    until = time.monotonic() + BUDGET

    async def step(job: UUID) -> None:
        if time.monotonic() < until:
            turns.record_step(job)  # even if the step fails: the next turn starts with the other jobs
            await _step(database, job)

    await for_each(turns.order(jobs), step)


async def _step(database: Database, id_: UUID) -> None:
    async with database.transaction() as tx:
        job = await table.lock(tx, id_)
        if job is None:
            return
        counts, pace = await table.count(tx, job), table.pace_of(job)
        step = RolloutStep(release=0, pace=pace)
        if job.status in transitions.ROLLING:
            step = rollouts.next_step(job.policy, counts, pace, job.now, most=table.AGENTS_LIMIT)
        released = await table.release(tx, job, counts, step.release)
        if step.abort is not None:
            await table.cancel_queued(tx, job, step.abort)
        elif job.status in transitions.STOPPED and counts.waiting + counts.queued:
            # An agent's answer requeued the job in a concurrent transaction that did not see the job end.
            await table.cancel_queued(tx, job, job.reason or job.status.lower())
        if step.release or step.abort or job.status in transitions.STOPPED:
            counts = await table.count(tx, job)
        status = transitions.phase_after_step(job.status, counts, aborted=step.abort is not None)
        if (status, counts, step.pace.credit) != (job.status, job.counts, job.credit) or not counts.open:
            await table.save_progress(tx, job, counts, status, step)
        details = {"job": id_, "name": job.job_name}
        rows = [TimelineEvent(agent=a, at=job.now, kind="job.queued", details=details) for a in released]
        await timeline.add(tx, job.tenant_id, rows)
    if step.abort is not None:
        logger.bind(tenant=job.tenant_id, job=str(id_), reason=step.abort).warning("a job was aborted")


async def _time_out(database: Database, lagging: Sequence[TenantId]) -> None:
    async with database.transaction() as tx:
        for job in await job_timeouts.time_out(tx, exclude=lagging):
            details = {"job": job.job_id, "name": job.job_name, "again": job.status == "QUEUED"}
            kind = "job.unbegun" if job.was == "QUEUED" else "job.timed_out"
            event = TimelineEvent(agent=job.agent_uuid, at=datetime.now(UTC), kind=kind, details=details)
            await timeline.add(tx, job.tenant_id, [event])


async def _notify(redis: Redis, database: Database, *, after_return: bool) -> None:
    """Notify agents of their jobs; agents of a tenant with `WAITING` waiting messages are notified later."""
    full: list[TenantId] = []
    for _ in range(PORTIONS):
        try:
            async with database.transaction() as tx:
                notices = await table.due_notices(tx, most=NOTICES, after_return=after_return, exclude=full)
                for tenant in sorted({notice.tenant_id for notice in notices}):
                    own = [notice for notice in notices if notice.tenant_id == tenant]
                    await _send(redis, tenant, [message for notice in own for message in _messages(notice)])
        except _TenantFullError as exc:
            full.append(exc.tenant)
            continue
        if len(notices) < NOTICES:
            return


class _TenantFullError(Exception):
    def __init__(self, tenant: TenantId) -> None:
        super().__init__(tenant)
        self.tenant = tenant


async def _send(redis: Redis, tenant: TenantId, messages: list[OutboundMessage]) -> None:
    try:
        await outbound.enqueue(redis, tenant, messages, most=WAITING)
    except Full:
        raise _TenantFullError(tenant) from None  # the transaction is rolled back, so no agent counts as notified


def _messages(notice: JobNotice) -> Iterable[OutboundMessage]:
    """Return the notice on both topics; an agent subscribes to one of them."""
    payload = job_messages.queued(
        notice.job_id, notice.job_document, notice.queued_at, notice.last_updated_at, notice.execution_number
    )
    until = min(notice.until, datetime.now(UTC) + table.NOTICE_LIFETIME).timestamp()
    topic = agent_topic(notice.tenant_id, notice.agent_uuid)
    return [OutboundMessage(f"{topic}/jobs/{name}", payload, until) for name in ("notify", "notify-next")]
