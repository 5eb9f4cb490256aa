"""A cache of which tenants and agents exist, valid for a few seconds."""

import time
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.access import tenants
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.agents import agents
from iotistica.storage.postgres import POOL_WAIT_SECONDS, Database

WAIT_SECONDS: Final = 1.0  # seconds to wait for the database while there are cached tenants to be used instead
CACHE_SECONDS: Final = 10.0  # seconds that a cached answer is valid
MISS_SECONDS: Final = 2.0  # seconds before an unknown id is queried again
MISSES_LIMIT: Final = 10_000  # unknown ids cached
AGENTS_LIMIT: Final = 200_000  # agents cached


class Directory:
    """Answers from memory; queries the database for other ids, for an unknown one at most every `MISS_SECONDS`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tenants: dict[TenantId, Tenant] = {}
        self._tenants_at = -CACHE_SECONDS
        # The tenant of each agent and when its query began, oldest first. This is not a TTLCache, because a lookup
        # there takes nine times as long, and it removes all expired entries during a single insertion.
        self._agents: dict[UUID, tuple[TenantId, float]] = {}
        self._misses: TTLCache[UUID | TenantId, None] = TTLCache(MISSES_LIMIT, MISS_SECONDS, time.monotonic)

    async def tenants(self) -> Mapping[TenantId, Tenant]:
        """Return every enabled tenant; while the database is unavailable, those cached before."""
        if time.monotonic() - self._tenants_at >= CACHE_SECONDS:
            try:
                await self._load_tenants()
            except Unavailable:
                if not self._tenants:
                    raise
                self._tenants_at = time.monotonic()  # the intake must not wait for the database at each call
        return self._tenants

    async def known(self, asked: Collection[TenantId]) -> frozenset[TenantId]:
        """Return those of these tenants that exist and are enabled, including a tenant added just now."""
        cached = await self.tenants()
        if any(self._should_query(tenant) for tenant in asked if tenant not in cached):
            await self._load_tenants()
            cached = self._tenants
            self._miss([tenant for tenant in asked if tenant not in cached])
        return frozenset(tenant for tenant in asked if tenant in cached)

    async def owners(self, asked: Collection[UUID]) -> dict[UUID, TenantId]:
        """Return the tenant of each of these agents; unknown agents are left out."""
        now = time.monotonic()
        oldest, nothing = now - CACHE_SECONDS, (None, 0.0)
        owners = {}
        for agent in asked:
            tenant, began = self._agents.get(agent, nothing)
            if tenant is not None and began > oldest:
                owners[agent] = tenant
        missing = [agent for agent in asked if agent not in owners and self._should_query(agent)]
        if missing:
            async with self._database.transaction() as tx:
                loaded = await agents.tenants_of(tx, missing)
            self._cache_owners(loaded, now)
            self._miss([agent for agent in missing if agent not in loaded])
            owners |= loaded
        return owners

    def _cache_owners(self, loaded: Mapping[UUID, TenantId], began: float) -> None:
        for agent, tenant in loaded.items():
            self._agents.pop(agent, None)  # so that it moves to the end
            self._agents[agent] = tenant, began
        if len(self._agents) > AGENTS_LIMIT:  # drop a tenth at once: finding the first key of a dict can be slow
            for agent in list(islice(self._agents, len(self._agents) - AGENTS_LIMIT * 9 // 10)):
                del self._agents[agent]

    async def _load_tenants(self) -> None:
        patience = WAIT_SECONDS if self._tenants else POOL_WAIT_SECONDS
        async with self._database.transaction(patience=patience) as tx:
            self._tenants = {t.tenant_id: t for t in await tenants.all_tenants(tx) if t.enabled}
        self._tenants_at = time.monotonic()

    def _should_query(self, id_: UUID | TenantId) -> bool:
        return id_ not in self._misses

    def _miss(self, missing: Collection[UUID | TenantId]) -> None:
        self._misses.update(dict.fromkeys(missing))
