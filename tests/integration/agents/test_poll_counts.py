"""Polls are counted in memory; what people wait for is written at once, the rest later."""

import asyncio
from uuid import uuid4

from iotistica.domain.ids import AgentId, TenantId
from iotistica.storage.agents import agents, poll_counts
from iotistica.storage.agents.poll_counts import PollCounts, PollStats
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database


async def stats(database: Database, tenant: TenantId, agent: AgentId) -> PollStats | None:
    async with database.transaction() as tx:
        return await poll_counts.stats(tx, tenant, agent)


async def test_a_fetched_target_and_a_first_poll_do_not_wait(database: Database, tenant: TenantId) -> None:
    """An unchanged answer to an agent that polls as usual is written with all others, and at the end."""
    one, other = AgentId(uuid4()), AgentId(uuid4())
    async with database.transaction() as tx:
        for agent in (one, other):
            await agents.add(tx, tenant, agent, str(agent), key=bytes(32), by=PLATFORM)
    counts, stop = PollCounts(database), asyncio.Event()
    running = asyncio.create_task(counts.run(stop))
    counts.add(tenant, one, 1, modified=True)
    counts.add(tenant, other, 1, modified=False)  # its first poll
    async with asyncio.timeout(15):
        while await stats(database, tenant, one) is None or await stats(database, tenant, other) is None:
            await asyncio.sleep(0.05)
    counts.add(tenant, other, 1, modified=False)
    counts.add(tenant, one, 2, modified=True)
    async with asyncio.timeout(15):
        while (found := await stats(database, tenant, one)) is None or found.fetched != 2:
            await asyncio.sleep(0.05)
    usual = await stats(database, tenant, other)
    assert usual is not None
    assert usual.polls == 1  # the second one waits
    stop.set()
    await running
    ended = await stats(database, tenant, other)
    assert ended is not None
    assert (ended.polls, ended.not_modified) == (2, 2)
