"""Caches key dictionaries in this process, so that Redis and the database are queried only for new ones."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID

from cachetools import LRUCache

from iotistica.domain.delivery.envelopes import NO_DICTIONARIES
from iotistica.domain.delivery.key_compaction import Expander
from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

AGENTS_LIMIT: Final = 2000  # agents whose dictionaries are cached


class _AgentDictionaries(NamedTuple):
    """The dictionaries of an agent and their revisions, by version."""

    expanders: dict[int, Expander]
    revisions: dict[int, int]


class DictionaryCache:
    """Looks up key dictionaries in memory, then in Redis, then in the database."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis = redis
        self._database = database
        self._agents: LRUCache[UUID, _AgentDictionaries] = LRUCache(AGENTS_LIMIT)

    def expanders_of(self, agent: UUID) -> Mapping[int, Expander]:
        """Return an agent's cached dictionaries, by version."""
        known = self._agents.get(agent)
        return known.expanders if known else NO_DICTIONARIES

    def revision(self, agent: UUID, version: int) -> int:
        """Return the cached revision of a dictionary; 0 if it is not cached."""
        known = self._agents.get(agent)
        return known.revisions.get(version, 0) if known else 0

    async def refresh(self, tenant: TenantId, agent: UUID, version: int) -> bool:
        """Load a dictionary if a newer revision than the cached one exists; return whether one was loaded."""
        before = self.revision(agent, version)
        newest = await table.cached_revision(self._redis, tenant, agent, version)
        if newest is not None and newest <= before:
            return False
        loaded = await table.cached(self._redis, tenant, agent, version) if newest else table.NO_DICTIONARY
        if loaded.revision <= before:
            async with self._database.transaction() as tx:
                loaded = await table.get(tx, tenant, agent, version)
        if loaded.revision <= before:
            return False
        known = self._agents.setdefault(agent, _AgentDictionaries({}, {}))
        known.expanders[version] = Expander(version, loaded.dictionary)
        known.revisions[version] = loaded.revision
        return True
