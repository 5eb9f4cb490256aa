"""Moves jobs on: a step of each rollout a second, notices to agents, and the end of those that say nothing."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain import notices, rollouts
from iotistica.domain.ids import TenantId, agent_topic
from iotistica.domain.jobs import Phase
from iotistica.domain.rollouts import Counts, Step
from iotistica.errors import Full, Unavailable
from iotistica.storage import outbound, timeline
from iotistica.storage import rollouts as table
from iotistica.storage.outbound import Outgoing
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.rollouts import Notice, Unsettled
from iotistica.storage.timeline import Happening
from iotistica.supervise import Group, sleep

EVERY: Final = 1.0  # seconds between steps
SELDOM: Final = 5  # steps between looks for the silent, and for those that are back
MOST: Final = 2000  # jobs in hand; later ones begin when these have ended
NOTICES: Final = 100  # in one transaction, each with its document twice
PORTIONS: Final = 5  # of notices a second
WAITING: Final = 2000  # messages of a tenant that wait for the broker: no more are added by us


def follow(redis: Redis, database: Database) -> Group:
    """Do it every second, for every tenant."""

    async def run(stop: asyncio.Event) -> None:
        turn = 0
        while not stop.is_set():
            try:
                await move(redis, database, seldom=turn % SELDOM == 0)
                turn += 1
            except Unavailable as exc:
                logger.bind(reason=str(exc)).debug("jobs are not moved on")
            await sleep(EVERY, stop)

    return run


async def move(redis: Redis, database: Database, *, seldom: bool = True) -> None:
    """Do it once; raises `Unavailable`."""
    if seldom:
        await _give_up(database)
    async with database.transaction() as tx:
        jobs = await table.unsettled(tx, most=MOST)
    for job in jobs:
        await _step(database, job)
    for back in (False, True) if seldom else (False,):
        await _notify(redis, database, back=back)


async def _step(database: Database, id_: UUID) -> None:
    async with database.transaction() as tx:
        job = await table.locked(tx, id_)
        if job is None:
            return
        counts, pace = await table.count(tx, job), table.paced(job)
        step = Step(release=0, pace=pace)
        if job.status in ("QUEUED", "IN_PROGRESS"):
            step = rollouts.step(job.policy, counts, pace, job.now, most=table.MOST)
        released = await table.release(tx, job, counts, step.release)
        if step.abort is not None:
            await table.call_off(tx, job, step.abort)
        if step.release or step.abort:
            counts = await table.count(tx, job)
        status = _phase(job, counts, step)
        if (status, counts, step.pace.credit) != (job.status, job.counts, job.credit) or not counts.open:
            await table.mark(tx, job, counts, status, step)
        details = {"job": id_, "name": job.job_name}
        rows = [Happening(agent=one, at=job.now, kind="job.queued", details=details) for one in released]
        await timeline.add(tx, job.tenant_id, rows)
    if step.abort is not None:
        logger.bind(tenant=job.tenant_id, job=str(id_), reason=step.abort).warning("a job was called off")


def _phase(job: Unsettled, counts: Counts, step: Step) -> Phase:
    if step.abort is not None:
        return "ABORTED"
    if job.status in ("ABORTED", "CANCELED") or (job.status == "PAUSED" and counts.open):
        return job.status
    if counts.open:
        return "IN_PROGRESS"
    return "FAILED" if counts.failed or counts.timed_out or not counts.succeeded else "SUCCEEDED"


async def _give_up(database: Database) -> None:
    async with database.transaction() as tx:
        for one in await table.give_up(tx):
            what = {"job": one.job_id, "name": one.job_name, "again": one.status == "QUEUED"}
            kind = "job.unbegun" if one.was == "QUEUED" else "job.timed_out"
            happened = Happening(agent=one.agent_uuid, at=datetime.now(UTC), kind=kind, details=what)
            await timeline.add(tx, one.tenant_id, [happened])


async def _notify(redis: Redis, database: Database, *, back: bool) -> None:
    """Tell agents; those of a tenant whose messages wait for the broker are told later."""
    full: list[TenantId] = []
    for _ in range(PORTIONS):
        try:
            async with database.transaction() as tx:
                found = await table.notices(tx, most=NOTICES, back=back, but=full)
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


async def _send(redis: Redis, tenant: TenantId, messages: list[Outgoing]) -> None:
    try:
        await outbound.send(redis, tenant, messages, most=WAITING)
    except Full:
        raise _TenantFullError(tenant) from None  # and nobody is marked as told


def _messages(one: Notice) -> Iterable[Outgoing]:
    """On both names: agents listen on one of them."""
    payload = notices.queued(one.job_id, one.job_document, one.queued_at, one.last_updated_at, one.execution_number)
    until = min(one.until, datetime.now(UTC) + table.TIME_LEFT).timestamp()
    topic = agent_topic(one.tenant_id, one.agent_uuid)
    return [Outgoing(f"{topic}/jobs/{name}", payload, until) for name in ("notify", "notify-next")]
