"""What agents are told when they ask: from memory, else from the database, and the last known when that is away."""

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.access.document_secrets import Box
from iotistica.domain.agents.broker_passwords import derive
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.agents.agent_cache import Roster
from iotistica.storage.control import targets
from iotistica.storage.postgres import Database, Tx, row_as
from iotistica.storage.redis import Redis, poll_key, translated

BODIES: Final = 64 << 20  # bytes of answers in memory
TAGS: Final = 200_000  # agents whose newest tag is in memory
COPY_DAYS: Final = 30  # an answer stays in Redis after it was last made
PORTION: Final = 500  # agents whose polls are written at a time
PATIENCE: Final = 2.0  # seconds for a connection to the database, when something else is known


class Sent(NamedTuple):
    """An answer: its number, its tag, and what it says."""

    counter: int
    etag: str
    body: bytes


# The higher number wins, whoever writes last.
COPY: Final = """
local old = redis.call('HGET', KEYS[1], 'counter')
if old and tonumber(old) > tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'counter', ARGV[1], 'etag', ARGV[2], 'body', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""


class Polls:
    """The answers of this process; every one that it makes is copied to Redis, sealed."""

    def __init__(self, roster: Roster, database: Database, redis: Redis, key: bytes) -> None:
        self._roster = roster
        self._database = database
        self._redis = redis
        self._box = Box(key)
        self._tag_key = derive(key, "target-etag")
        self._tags: dict[UUID, tuple[int, str]] = {}
        self._bodies: OrderedDict[UUID, Sent] = OrderedDict()
        self._bytes = 0

    def tag(self, agent: UUID) -> tuple[int, str] | None:
        """The number and the tag of what the agent is told now, if that is known for certain."""
        found = self._tags.get(agent)
        if found is None or not self._roster.is_current or self._roster.counter(agent) != found[0]:
            return None
        return found

    def held(self, agent: UUID) -> Sent | None:
        """The last answer to an agent that is in memory, be it current or not."""
        held = self._bodies.get(agent)
        if held is not None:
            self._bodies.move_to_end(agent)
        return held

    async def sent(self, tenant: TenantId, agent: UUID) -> Sent:
        """What the agent is told now, or was told last if that cannot be found out; raises `Unavailable`."""
        held = self.held(agent)
        if held is not None and self.tag(agent) == (held.counter, held.etag):
            return held
        counter = self._roster.counter(agent) if self._roster.is_current else None
        copied = await self._copied(tenant, agent) if counter is not None and held is None else None
        if copied is not None and copied.counter == counter:
            self._keep(agent, copied)
            return copied
        try:
            return await self._made(tenant, agent)
        except Unavailable:
            last = held or copied or await self._copied(tenant, agent)
            if last is None:
                raise
            return last

    async def _made(self, tenant: TenantId, agent: UUID) -> Sent:
        async with self._database.transaction(tenant, patience=PATIENCE) as tx:
            found = await targets.sources(tx, tenant, agent)
        whole = rules.inherited(self._opened(found.fleet, tenant), self._opened(found.own, tenant))
        body = rules.body(agent, whole, version=found.counter, deployed_at=found.deployed_at)
        sent = Sent(found.counter, rules.etag(body, self._tag_key), body)
        self._keep(agent, sent)
        await self._copy(tenant, agent, sent)
        return sent

    def _opened(self, target: Target, tenant: TenantId) -> Target:
        return Target(apps=self._box.open(target.apps, tenant), config=self._box.open(target.config, tenant))

    def _keep(self, agent: UUID, sent: Sent) -> None:
        if self._tags.get(agent, (0, ""))[0] > sent.counter:
            return  # somebody read it later
        if len(self._tags) >= TAGS:
            self._tags.clear()
        self._tags[agent] = (sent.counter, sent.etag)
        old = self._bodies.pop(agent, None)
        self._bodies[agent] = sent
        self._bytes += len(sent.body) - (len(old.body) if old else 0)
        while self._bytes > BODIES:
            _, gone = self._bodies.popitem(last=False)
            self._bytes -= len(gone.body)

    async def _copy(self, tenant: TenantId, agent: UUID, sent: Sent) -> None:
        sealed = self._box.seal_bytes(sent.body, tenant)
        try:
            with translated(self._redis):
                await self._redis.eval(
                    COPY, 1, poll_key(tenant, agent), sent.counter, sent.etag, sealed, COPY_DAYS * 86_400
                )
        except Unavailable:
            return

    async def _copied(self, tenant: TenantId, agent: UUID) -> Sent | None:
        try:
            with translated(self._redis):
                found: Any = await self._redis.hmget(poll_key(tenant, agent), "counter", "etag", "body")
        except Unavailable:
            return None
        counter, etag, sealed = found
        body = self._box.open_bytes(sealed, tenant) if sealed else None
        return Sent(int(counter), etag.decode(), body) if body else None


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


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """When an agent asked for its target, and what it got; `fetched` is the number of that."""

    polled_at: datetime
    fetched_at: datetime | None
    fetched: int | None
    polls: int
    not_modified: int


ASKED: Final = """
SELECT polled_at, fetched_at, fetched, polls, not_modified FROM agent_polls
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
"""


async def asked(tx: Tx, tenant: TenantId, agent: UUID) -> Asked | None:
    """When an agent asked, as of the last write of the counts; None if it never did."""
    return await row_as(tx, Asked, ASKED, {"tenant": tenant, "agent": agent})


class Counts:
    """Who asked when and what for, counted in memory and written now and then."""

    def __init__(self, database: Database) -> None:
        """`database` sees every tenant."""
        self._database = database
        self._counts: dict[UUID, _Count] = {}

    def add(self, tenant: TenantId, agent: UUID, has: int, *, modified: bool) -> None:
        """Count a poll; `has` is the number of what the agent has now, because it got it or had it already."""
        if len(self._counts) >= TAGS:
            return
        now = time.time()
        count = self._counts.setdefault(agent, _Count(tenant, now))
        count.polled_at = now
        count.polls += 1
        count.fetched = has
        if modified:
            count.fetched_at = now
        else:
            count.not_modified += 1

    async def write(self) -> None:
        """Write what was counted; if the database is away it is kept and written later."""
        taken, self._counts = self._counts, {}
        agents = sorted(taken, key=lambda agent: agent.bytes)
        for at in range(0, len(agents), PORTION):
            try:
                await self._write({agent: taken[agent] for agent in agents[at : at + PORTION]})
            except Unavailable:
                self._keep({agent: taken[agent] for agent in agents[at:]})
                return
            await asyncio.sleep(0)  # polls go on meanwhile

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

    def _keep(self, unwritten: dict[UUID, _Count]) -> None:
        """Count what could not be written to what has come since."""
        for agent, old in unwritten.items():
            new = self._counts.setdefault(agent, old)
            if new is not old:
                new.polls += old.polls
                new.not_modified += old.not_modified
                new.fetched = old.fetched if new.fetched is None else new.fetched
                new.fetched_at = new.fetched_at or old.fetched_at


def _time(stamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(stamp, UTC) if stamp else None
