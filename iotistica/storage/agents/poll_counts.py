"""When each agent polled and which target version it has: counted in memory, written every few seconds.

What people wait for is written within a second: a target that was fetched, and an agent that had stopped polling.
"""

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.postgres import Database, Tx, fetch_row
from iotistica.supervise import sleep

WRITE_SECONDS: Final = 10.0  # between two writes of all counts
SOON_SECONDS: Final = 1.0  # between two writes of what people wait for
BACK_SECONDS: Final = 180.0  # without a poll, after which the next one is written soon
WRITE_LIMIT: Final = 500  # agents whose polls are written at a time
AGENTS_LIMIT: Final = 200_000  # agents counted between two writes; once reached, polls are not counted


class _Count(msgspec.Struct):
    tenant: TenantId
    polled_at: float
    fetched_at: float | None = None
    fetched: int | None = None
    polls: int = 0
    not_modified: int = 0


WRITE: Final = """
INSERT INTO agent_polls AS p (agent_uuid, tenant_id, polled_at, fetched_at, fetched, polls, not_modified)
SELECT n.* FROM unnest(%(agents)s::uuid[], %(tenants)s::text[], %(polled)s::timestamptz[],
    %(fetched_at)s::timestamptz[], %(fetched)s::bigint[], %(polls)s::bigint[], %(not_modified)s::bigint[])
    AS n (agent_uuid, tenant_id, polled_at, fetched_at, fetched, polls, not_modified)
JOIN agents a USING (tenant_id, agent_uuid)
ON CONFLICT (agent_uuid) DO UPDATE
SET polled_at = greatest(p.polled_at, excluded.polled_at),
    fetched_at = greatest(p.fetched_at, excluded.fetched_at),
    fetched = CASE WHEN excluded.polled_at >= p.polled_at THEN coalesce(excluded.fetched, p.fetched)
                   ELSE p.fetched END,
    polls = p.polls + excluded.polls, not_modified = p.not_modified + excluded.not_modified
"""


FETCHED: Final = """
INSERT INTO agent_timeline (tenant_id, agent_uuid, at, kind, details)
SELECT a.tenant_id, a.agent_uuid, coalesce(n.at, n.polled), 'target.fetched',
       jsonb_build_object('version', n.fetched)
FROM unnest(%(agents)s::uuid[], %(tenants)s::text[], %(fetched_at)s::timestamptz[], %(fetched)s::bigint[],
            %(polled)s::timestamptz[]) AS n (agent_uuid, tenant_id, at, fetched, polled)
JOIN agents a USING (tenant_id, agent_uuid) LEFT JOIN agent_polls p USING (agent_uuid)
WHERE n.fetched IS NOT NULL AND n.fetched IS DISTINCT FROM p.fetched AND (p.polled_at <= n.polled) IS NOT FALSE
"""


class PollStats(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often an agent polled; `fetched` is the number of the target that it has."""

    polled_at: datetime
    fetched_at: datetime | None
    fetched: int | None
    polls: int
    not_modified: int


STATS: Final = """
SELECT polled_at, fetched_at, fetched, polls, not_modified FROM agent_polls
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def stats(tx: Tx, tenant: TenantId, agent: UUID) -> PollStats | None:
    """Return the poll counts of an agent as of their last write; None if it never polled."""
    return await fetch_row(tx, PollStats, STATS, {"tenant": tenant, "agent": agent})


class PollCounts:
    """Counts the polls of agents in memory and writes them to the database every `WRITE_SECONDS`."""

    def __init__(self, database: Database) -> None:
        """`database` must have access to every tenant."""
        self._database = database
        self._counts: dict[UUID, _Count] = {}
        self._soon: set[UUID] = set()
        self._polled: dict[UUID, float] = {}  # the latest poll of each agent, in s since the epoch

    def add(self, tenant: TenantId, agent: UUID, has: int, *, modified: bool) -> None:
        """Count a poll; `has` is the number of the target that the agent has now, just sent or not modified."""
        if len(self._counts) >= AGENTS_LIMIT:
            return
        now = time.time()
        if modified or now - self._polled.get(agent, 0.0) > BACK_SECONDS:
            self._soon.add(agent)
        self._polled[agent] = now
        count = self._counts.setdefault(agent, _Count(tenant, now))
        count.polled_at = now
        count.polls += 1
        count.fetched = has
        if modified:
            count.fetched_at = now
        else:
            count.not_modified += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Write the counts every `WRITE_SECONDS` until `stop`, and those that people wait for more often."""
        written = time.monotonic()
        while not stop.is_set():
            await sleep(SOON_SECONDS, stop)
            if stop.is_set() or time.monotonic() - written >= WRITE_SECONDS:
                written = time.monotonic()
                if len(self._polled) > AGENTS_LIMIT:
                    self._polled.clear()
                await self.write(list(self._counts))
            elif self._soon:
                await self.write(self._soon)

    async def write(self, agents: Collection[UUID]) -> None:
        """Write the counts of these agents; while the database is unavailable they are kept and written later."""
        counts = {agent: self._counts.pop(agent) for agent in agents if agent in self._counts}
        self._soon -= counts.keys()
        agents = sorted(counts, key=lambda agent: agent.bytes)
        for at in range(0, len(agents), WRITE_LIMIT):
            try:
                await self._write({agent: counts[agent] for agent in agents[at : at + WRITE_LIMIT]})
            except Unavailable:
                self._put_back({agent: counts[agent] for agent in agents[at:]})
                return
            await asyncio.sleep(0)  # let other tasks serve polls in between

    async def _write(self, counted: dict[UUID, _Count]) -> None:
        counts = list(counted.values())
        columns: dict[str, list[Any]] = {
            "agents": list(counted),
            "tenants": [count.tenant for count in counts],
            "polled": [_time(count.polled_at) for count in counts],
            "fetched_at": [_time(count.fetched_at) for count in counts],
            "fetched": [count.fetched for count in counts],
            "polls": [count.polls for count in counts],
            "not_modified": [count.not_modified for count in counts],
        }
        async with self._database.transaction() as tx:
            await tx.execute(FETCHED, columns)
            await tx.execute(WRITE, columns)

    def _put_back(self, unwritten: dict[UUID, _Count]) -> None:
        """Add counts that could not be written to those counted since."""
        for agent, earlier in unwritten.items():
            later = self._counts.setdefault(agent, earlier)
            if later is not earlier:
                later.polls += earlier.polls
                later.not_modified += earlier.not_modified
                later.fetched = earlier.fetched if later.fetched is None else later.fetched
                later.fetched_at = later.fetched_at or earlier.fetched_at


def _time(stamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(stamp, UTC) if stamp else None
