"""Who exists: tenants and agents, remembered for a few seconds."""

import time
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.access import tenants
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.agents import agents
from iotistica.storage.postgres import Database

WAIT_SECONDS: Final = 1.0  # seconds to wait for the database when what is known will do
CACHE_SECONDS: Final = 10.0  # seconds an answer is believed
MISS_SECONDS: Final = 2.0  # seconds an unknown id is not asked for again
MISSES_LIMIT: Final = 10_000  # unknown ids remembered at most
AGENTS_LIMIT: Final = 200_000  # known agents remembered at most


class Directory:
    """Answers from memory; asks the database for what it does not know, at most once in `CACHE_SECONDS` each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tenants: dict[TenantId, Tenant] = {}
        self._tenants_at = -CACHE_SECONDS
        self._agents: dict[UUID, TenantId] = {}
        self._agents_at = 0.0
        self._misses: dict[UUID | TenantId, float] = {}

    async def tenants(self) -> Mapping[TenantId, Tenant]:
        """Every enabled tenant; while the database is away, those known before."""
        if time.monotonic() - self._tenants_at >= CACHE_SECONDS:
            try:
                await self._load_tenants()
            except Unavailable:
                if not self._tenants:
                    raise
                self._tenants_at = time.monotonic()  # the intake must not wait for the database each time
        return self._tenants

    async def known(self, asked: Collection[TenantId]) -> frozenset[TenantId]:
        """Those of these tenants that exist and are enabled; a tenant made just now is found."""
        found = await self.tenants()
        if any(self._worth_asking(tenant) for tenant in asked if tenant not in found):
            await self._load_tenants()
            found = self._tenants
            self._miss([tenant for tenant in asked if tenant not in found])
        return frozenset(tenant for tenant in asked if tenant in found)

    async def owners(self, asked: Collection[UUID]) -> dict[UUID, TenantId]:
        """The tenant of each of these agents that has one."""
        now = time.monotonic()
        if now - self._agents_at >= CACHE_SECONDS or len(self._agents) > AGENTS_LIMIT:
            self._agents, self._agents_at = {}, now
        found = {agent: self._agents[agent] for agent in asked if agent in self._agents}
        unknown = [agent for agent in asked if agent not in found and self._worth_asking(agent)]
        if unknown:
            async with self._database.transaction() as tx:
                loaded = await agents.tenants_of(tx, unknown)
            self._agents.update(loaded)  # which another caller may have replaced meanwhile
            self._miss([agent for agent in unknown if agent not in loaded])
            found |= loaded
        return found

    async def _load_tenants(self) -> None:
        async with self._database.transaction(patience=WAIT_SECONDS) as tx:
            self._tenants = {t.tenant_id: t for t in await tenants.all_tenants(tx) if t.enabled}
        self._tenants_at = time.monotonic()

    def _worth_asking(self, asked: UUID | TenantId) -> bool:
        return time.monotonic() - self._misses.get(asked, -MISS_SECONDS) >= MISS_SECONDS

    def _miss(self, missing: Collection[UUID | TenantId]) -> None:
        if len(self._misses) > MISSES_LIMIT:
            self._misses.clear()
        self._misses.update(dict.fromkeys(missing, time.monotonic()))
