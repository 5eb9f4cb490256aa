"""Answers to polls: from memory, else from the database, else the last copy while the database is unavailable."""

from collections import OrderedDict
from typing import Any, Final, NamedTuple
from uuid import UUID

from cachetools import LRUCache

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.control import targets as rules
from iotistica.domain.control.sealed_targets import open_target
from iotistica.domain.ids import TenantId
from iotistica.domain.key_derivation import derive
from iotistica.errors import Unavailable
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.control import targets
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis, guarded, poll_key

CACHE_BYTES: Final = 64 << 20  # bytes of answer bodies in memory
AGENTS_LIMIT: Final = 200_000  # agents whose newest ETag is in memory
COPY_DAYS: Final = 30  # days that an answer stays in Redis after it was last composed
WAIT_SECONDS: Final = 2.0  # seconds to wait for a database connection


class PollAnswer(NamedTuple):
    """The answer to a poll: the number of the target, the ETag and the body."""

    counter: int
    etag: str
    body: bytes


# The copy with the higher counter stays, whichever process writes last.
SAVE_COPY: Final = """
local old = redis.call('HGET', KEYS[1], 'counter')
if old and tonumber(old) > tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'counter', ARGV[1], 'etag', ARGV[2], 'body', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""


class PollAnswerCache:
    """The poll answers of this process; each answer that it composes is also copied to Redis, encrypted."""

    def __init__(self, agent_cache: AgentCache, database: Database, redis: Redis, key: bytes) -> None:
        self._agent_cache = agent_cache
        self._database = database
        self._redis = redis
        self._box = SecretBox(key)
        self._tag_key = derive(key, "target-etag")
        self._tags: LRUCache[UUID, tuple[int, str]] = LRUCache(AGENTS_LIMIT)
        self._bodies: OrderedDict[UUID, PollAnswer] = OrderedDict()
        self._bytes = 0

    def current_tag(self, agent: UUID) -> tuple[int, str] | None:
        """Return the counter and the ETag of the agent's current answer; None if they are not certainly current."""
        tag = self._tags.get(agent)
        if tag is None or not self._agent_cache.is_current or self._agent_cache.target_counter(agent) != tag[0]:
            return None
        return tag

    def cached(self, agent: UUID) -> PollAnswer | None:
        """Return the last answer to an agent that is in memory, whether it is current or not."""
        held = self._bodies.get(agent)
        if held is not None:
            self._bodies.move_to_end(agent)
        return held

    async def answer_for(self, tenant: TenantId, agent: UUID) -> PollAnswer:
        """Return the agent's current answer, or the last one while the database is unavailable.

        Raises `Unavailable` if there is no earlier answer in memory or in Redis.
        """
        held = self.cached(agent)
        if held is not None and self.current_tag(agent) == (held.counter, held.etag):
            return held
        counter = self._agent_cache.target_counter(agent) if self._agent_cache.is_current else None
        copied = await self._read_copy(tenant, agent) if counter is not None and held is None else None
        if copied is not None and copied.counter == counter:
            self._cache(agent, copied)
            return copied
        try:
            return await self._compose(tenant, agent)
        except Unavailable:
            last = held or copied or await self._read_copy(tenant, agent)
            if last is None:
                raise
            return last

    async def _compose(self, tenant: TenantId, agent: UUID) -> PollAnswer:
        async with self._database.transaction(tenant, patience=WAIT_SECONDS) as tx:
            layers = await targets.layers(tx, tenant, agent)
        fleet, own = (open_target(self._box, layer, tenant) for layer in (layers.fleet, layers.own))
        target = rules.effective_target(fleet, own)
        body = rules.poll_body(agent, target, version=layers.counter, deployed_at=layers.deployed_at)
        answer = PollAnswer(layers.counter, rules.etag(body, self._tag_key), body)
        self._cache(agent, answer)
        await self._write_copy(tenant, agent, answer)
        return answer

    def _cache(self, agent: UUID, answer: PollAnswer) -> None:
        if self._tags.get(agent, (0, ""))[0] > answer.counter:
            return  # a concurrent call read a newer target
        self._tags[agent] = (answer.counter, answer.etag)
        previous = self._bodies.pop(agent, None)
        self._bodies[agent] = answer
        self._bytes += len(answer.body) - (len(previous.body) if previous else 0)
        while self._bytes > CACHE_BYTES:
            _, evicted = self._bodies.popitem(last=False)
            self._bytes -= len(evicted.body)

    async def _write_copy(self, tenant: TenantId, agent: UUID, answer: PollAnswer) -> None:
        sealed = self._box.seal_bytes(answer.body, tenant)
        try:
            with guarded(self._redis):
                await self._redis.eval(
                    SAVE_COPY, 1, poll_key(tenant, agent), answer.counter, answer.etag, sealed, COPY_DAYS * 86_400
                )
        except Unavailable:
            return

    async def _read_copy(self, tenant: TenantId, agent: UUID) -> PollAnswer | None:
        try:
            with guarded(self._redis):
                fields: Any = await self._redis.hmget(poll_key(tenant, agent), "counter", "etag", "body")
        except Unavailable:
            return None
        counter, etag, sealed = fields
        body = self._box.open_bytes(sealed, tenant) if sealed else None
        return PollAnswer(int(counter), etag.decode(), body) if body else None
