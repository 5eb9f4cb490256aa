"""Caches key dictionaries in this process, so that Redis and the database are queried only for new ones."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from iotistica.domain.delivery.envelopes import NO_DICTIONARIES
from iotistica.domain.delivery.key_compaction import Expander
from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

AGENTS_LIMIT: Final = 2000  # agents whose dictionaries are cached; a new agent above that empties the cache


class DictionaryCache:
    """Looks up key dictionaries in memory, then in Redis, then in the database."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis = redis
        self._database = database
        self._expanders: dict[UUID, dict[int, Expander]] = {}
        self._revisions: dict[tuple[UUID, int], int] = {}

    def expanders_of(self, agent: UUID) -> Mapping[int, Expander]:
        """Return an agent's cached dictionaries, by version."""
        return self._expanders.get(agent, NO_DICTIONARIES)

    def revision(self, agent: UUID, version: int) -> int:
        """Return the cached revision of a dictionary; 0 if it is not cached."""
        return self._revisions.get((agent, version), 0)

    async def refresh(self, tenant: TenantId, agent: UUID, version: int) -> bool:
        """Load a dictionary if a newer revision than the cached one exists; return whether one was loaded."""
        before = self.revision(agent, version)
        newest = await table.cached_revision(self._redis, tenant, agent, version)
        if newest is not None and newest <= before:
            return False
        known = await table.cached(self._redis, tenant, agent, version) if newest else table.NO_DICTIONARY
        if known.revision <= before:
            async with self._database.transaction() as tx:
                known = await table.get(tx, tenant, agent, version)
        if known.revision <= before:
            return False
        if agent not in self._expanders and len(self._expanders) >= AGENTS_LIMIT:
            self._expanders.clear()
            self._revisions.clear()
        self._expanders.setdefault(agent, {})[version] = Expander(version, known.dictionary)
        self._revisions[agent, version] = known.revision
        return True
