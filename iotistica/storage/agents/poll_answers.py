"""What agents are told when they ask: from memory, else from the database, and the last known when that is away."""

from collections import OrderedDict
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId
from iotistica.domain.key_derivation import derive
from iotistica.errors import Unavailable
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.control import targets
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis, guarded, poll_key

CACHE_BYTES: Final = 64 << 20  # bytes of answers in memory
AGENTS_LIMIT: Final = 200_000  # agents whose newest tag is in memory
COPY_DAYS: Final = 30  # an answer stays in Redis after it was last made
WAIT_SECONDS: Final = 2.0  # seconds for a connection to the database, when something else is known


class PollAnswer(NamedTuple):
    """An answer: its number, its tag, and what it says."""

    counter: int
    etag: str
    body: bytes


# The higher number wins, whoever writes last.
SAVE_COPY: Final = """
local old = redis.call('HGET', KEYS[1], 'counter')
if old and tonumber(old) > tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'counter', ARGV[1], 'etag', ARGV[2], 'body', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""


class PollAnswers:
    """The answers of this process; every one that it makes is copied to Redis, sealed."""

    def __init__(self, agent_cache: AgentCache, database: Database, redis: Redis, key: bytes) -> None:
        self._agent_cache = agent_cache
        self._database = database
        self._redis = redis
        self._box = SecretBox(key)
        self._tag_key = derive(key, "target-etag")
        self._tags: dict[UUID, tuple[int, str]] = {}
        self._bodies: OrderedDict[UUID, PollAnswer] = OrderedDict()
        self._bytes = 0

    def current_tag(self, agent: UUID) -> tuple[int, str] | None:
        """The number and the tag of what the agent is told now, if that is known for certain."""
        found = self._tags.get(agent)
        if found is None or not self._agent_cache.is_current or self._agent_cache.target_counter(agent) != found[0]:
            return None
        return found

    def cached(self, agent: UUID) -> PollAnswer | None:
        """The last answer to an agent that is in memory, be it current or not."""
        held = self._bodies.get(agent)
        if held is not None:
            self._bodies.move_to_end(agent)
        return held

    async def answer_for(self, tenant: TenantId, agent: UUID) -> PollAnswer:
        """What the agent is told now, or was told last if that cannot be found out; raises `Unavailable`."""
        held = self.cached(agent)
        if held is not None and self.current_tag(agent) == (held.counter, held.etag):
            return held
        counter = self._agent_cache.target_counter(agent) if self._agent_cache.is_current else None
        copied = await self._read_write_copy(tenant, agent) if counter is not None and held is None else None
        if copied is not None and copied.counter == counter:
            self._keep(agent, copied)
            return copied
        try:
            return await self._compose(tenant, agent)
        except Unavailable:
            last = held or copied or await self._read_write_copy(tenant, agent)
            if last is None:
                raise
            return last

    async def _compose(self, tenant: TenantId, agent: UUID) -> PollAnswer:
        async with self._database.transaction(tenant, patience=WAIT_SECONDS) as tx:
            found = await targets.sources(tx, tenant, agent)
        whole = rules.effective_target(self._opened(found.fleet, tenant), self._opened(found.own, tenant))
        body = rules.poll_body(agent, whole, version=found.counter, deployed_at=found.deployed_at)
        sent = PollAnswer(found.counter, rules.etag(body, self._tag_key), body)
        self._keep(agent, sent)
        await self._write_copy(tenant, agent, sent)
        return sent

    def _opened(self, target: Target, tenant: TenantId) -> Target:
        return Target(apps=self._box.open(target.apps, tenant), config=self._box.open(target.config, tenant))

    def _keep(self, agent: UUID, sent: PollAnswer) -> None:
        if self._tags.get(agent, (0, ""))[0] > sent.counter:
            return  # somebody read it later
        if len(self._tags) >= AGENTS_LIMIT:
            self._tags.clear()
        self._tags[agent] = (sent.counter, sent.etag)
        old = self._bodies.pop(agent, None)
        self._bodies[agent] = sent
        self._bytes += len(sent.body) - (len(old.body) if old else 0)
        while self._bytes > CACHE_BYTES:
            _, gone = self._bodies.popitem(last=False)
            self._bytes -= len(gone.body)

    async def _write_copy(self, tenant: TenantId, agent: UUID, sent: PollAnswer) -> None:
        sealed = self._box.seal_bytes(sent.body, tenant)
        try:
            with guarded(self._redis):
                await self._redis.eval(
                    SAVE_COPY, 1, poll_key(tenant, agent), sent.counter, sent.etag, sealed, COPY_DAYS * 86_400
                )
        except Unavailable:
            return

    async def _read_write_copy(self, tenant: TenantId, agent: UUID) -> PollAnswer | None:
        try:
            with guarded(self._redis):
                found: Any = await self._redis.hmget(poll_key(tenant, agent), "counter", "etag", "body")
        except Unavailable:
            return None
        counter, etag, sealed = found
        body = self._box.open_bytes(sealed, tenant) if sealed else None
        return PollAnswer(int(counter), etag.decode(), body) if body else None
