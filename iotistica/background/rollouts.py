"""Moves jobs on: a step of each rollout a second, notices to agents, and the end of those that say nothing."""

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
from iotistica.background.presence import lagging
from iotistica.domain.control import job_messages, rollouts
from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.rollouts import RolloutStep
from iotistica.domain.ids import TenantId, agent_topic
from iotistica.errors import Full
from iotistica.storage.agents.directory import Directory
from iotistica.storage.control import job_timeouts
from iotistica.storage.control import rollouts as table
from iotistica.storage.control.rollouts import JobNotice
from iotistica.storage.delivery import outbound
from iotistica.storage.delivery.outbound import OutboundMessage
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

EVERY: Final = 1.0  # seconds between steps
SELDOM: Final = 5.0  # seconds between checks for agents that took too long, and for agents that are back
MOST: Final = 20_000  # jobs in hand
BUDGET: Final = 1.0  # seconds of steps in one turn, which every tenant's first job has a part of
NOTICES: Final = 100  # in one transaction, each with its document twice
PORTIONS: Final = 5  # of notices a second
WAITING: Final = 2000  # messages of a tenant that wait for the broker: no more are added by us


def tasks(redis: Redis, database: Database, directory: Directory) -> list[PeriodicTask]:
    """The periodic tasks of jobs, of every tenant."""
    turns, turn = TenantTurns(), asyncio.Lock()  # they change the same rows: one after the other, so none deadlocks

    async def move_on() -> None:
        async with turn:
            await for_each((step, notify_due), lambda work: work())

    async def step() -> None:
        await step_all(database, turns)

    async def notify_due() -> None:
        await _notify(redis, database, back=False)

    async def time_out() -> None:
        async with turn:
            await _time_out(database, await lagging(redis, directory))

    async def notify_after_return() -> None:
        async with turn:
            await _notify(redis, database, back=True)

    return [
        PeriodicTask("rollouts", EVERY, move_on),
        PeriodicTask("job-timeouts", SELDOM, time_out),
        PeriodicTask("job-notices-after-return", SELDOM, notify_after_return),
    ]


class TenantTurns:
    """Whose turn it is: a job of each tenant, those first that have waited longest."""

    def __init__(self) -> None:
        self._stepped: dict[UUID, int] = {}
        self._count = 0

    def order(self, jobs: Iterable[tuple[UUID, TenantId]]) -> list[UUID]:
        """The jobs in the order in which they are to be moved on."""
        of: defaultdict[TenantId, list[UUID]] = defaultdict(list)
        for job, tenant in jobs:
            of[tenant].append(job)
        self._stepped = {job: self._stepped[job] for some in of.values() for job in some if job in self._stepped}
        lines = [sorted(some, key=self._last) for some in of.values()]
        rows = [[job for job in row if job is not None] for row in zip_longest(*lines)]
        return [job for row in rows for job in sorted(row, key=self._last)]

    def _last(self, job: UUID) -> int:
        return self._stepped.get(job, 0)

    def took(self, job: UUID) -> None:
        """Note that a job was moved on."""
        self._count += 1
        self._stepped[job] = self._count


async def step_all(database: Database, turns: TenantTurns) -> None:
    """Take a step of as many jobs as `BUDGET` allows; raises `Unavailable`."""
    async with database.transaction() as tx:
        jobs = await table.active_jobs(tx, most=MOST)
    until = time.monotonic() + BUDGET

    async def step(job: UUID) -> None:
        if time.monotonic() < until:
            turns.took(job)  # also if it fails: the next turn begins with the others
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
            # An answer that was tried again as the job was called off, and did not see it.
            await table.cancel_queued(tx, job, job.reason or job.status.lower())
        if step.release or step.abort or job.status in transitions.STOPPED:
            counts = await table.count(tx, job)
        status = transitions.phase_after_step(job.status, counts, aborted=step.abort is not None)
        if (status, counts, step.pace.credit) != (job.status, job.counts, job.credit) or not counts.open:
            await table.save_progress(tx, job, counts, status, step)
        details = {"job": id_, "name": job.job_name}
        rows = [TimelineEvent(agent=one, at=job.now, kind="job.queued", details=details) for one in released]
        await timeline.add(tx, job.tenant_id, rows)
    if step.abort is not None:
        logger.bind(tenant=job.tenant_id, job=str(id_), reason=step.abort).warning("a job was called off")


async def _time_out(database: Database, lagging: Sequence[TenantId]) -> None:
    async with database.transaction() as tx:
        for one in await job_timeouts.time_out(tx, but=lagging):
            what = {"job": one.job_id, "name": one.job_name, "again": one.status == "QUEUED"}
            kind = "job.unbegun" if one.was == "QUEUED" else "job.timed_out"
            happened = TimelineEvent(agent=one.agent_uuid, at=datetime.now(UTC), kind=kind, details=what)
            await timeline.add(tx, one.tenant_id, [happened])


async def _notify(redis: Redis, database: Database, *, back: bool) -> None:
    """Tell agents; those of a tenant whose messages wait for the broker are told later."""
    full: list[TenantId] = []
    for _ in range(PORTIONS):
        try:
            async with database.transaction() as tx:
                found = await table.due_notices(tx, most=NOTICES, back=back, but=full)
                for tenant in sorted({one.tenant_id for one in found}):
                    mine = [message for one in found if one.tenant_id == tenant for message in _messages(one)]
                    await _send(redis, tenant, mine)
        except _TenantFullError as exc:
            full.append(exc.tenant)
            continue
        if len(found) < NOTICES:
            return


class _TenantFullError(Exception):
    def __init__(self, tenant: TenantId) -> None:
        super().__init__(tenant)
        self.tenant = tenant


async def _send(redis: Redis, tenant: TenantId, messages: list[OutboundMessage]) -> None:
    try:
        await outbound.enqueue(redis, tenant, messages, most=WAITING)
    except Full:
        raise _TenantFullError(tenant) from None  # and nobody is marked as told


def _messages(one: JobNotice) -> Iterable[OutboundMessage]:
    """On both names: agents listen on one of them."""
    payload = job_messages.queued(
        one.job_id, one.job_document, one.queued_at, one.last_updated_at, one.execution_number
    )
    until = min(one.until, datetime.now(UTC) + table.NOTICE_LIFETIME).timestamp()
    topic = agent_topic(one.tenant_id, one.agent_uuid)
    return [OutboundMessage(f"{topic}/jobs/{name}", payload, until) for name in ("notify", "notify-next")]
