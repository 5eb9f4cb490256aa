"""The dictionaries this process knows, so that others are asked only for what is new."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from iotistica.domain.delivery.envelopes import NO_DICTIONARIES
from iotistica.domain.delivery.key_compaction import Expander
from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

AGENTS_LIMIT: Final = 2000  # whose dictionaries are remembered at most


class DictionaryCache:
    """From memory, else from Redis, else from the database."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis = redis
        self._database = database
        self._expanders: dict[UUID, dict[int, Expander]] = {}
        self._revisions: dict[tuple[UUID, int], int] = {}

    def expanders_of(self, agent: UUID) -> Mapping[int, Expander]:
        """What is remembered, by version."""
        return self._expanders.get(agent, NO_DICTIONARIES)

    def revision(self, agent: UUID, version: int) -> int:
        """How much of it is remembered."""
        return self._revisions.get((agent, version), 0)

    async def refresh(self, tenant: TenantId, agent: UUID, version: int) -> bool:
        """Look for more of a dictionary than is remembered; whether there was more."""
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
