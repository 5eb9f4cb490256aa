"""A cache of all agents that can poll: their API keys and target counters, kept up to date."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from loguru import logger

from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import Unavailable
from iotistica.storage.agents.agent_keys import KeyHolder
from iotistica.storage.postgres import Database, Tx, fetch_row, fetch_rows
from iotistica.supervise import sleep, wait_for_any

CHANNEL: Final = "agent_sync"
AGENTS_LIMIT: Final = 200_000  # agents cached; the others are read from the database each time
PAGE_SIZE: Final = 5000  # agents read at a time
REFRESH_SECONDS: Final = 10.0  # seconds between refreshes if a notification is missed
SPACING_SECONDS: Final = 0.05  # minimum seconds between refreshes
TRUSTED_SECONDS: Final = 30.0  # seconds after a refresh; without a limit while the database is unavailable
RETRY_SECONDS: Final = 1.0  # seconds before a failed refresh is tried again


class _CachedKey(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    used: bool
    until: datetime | None


class CachedAgent(msgspec.Struct, frozen=True, kw_only=True):
    agent_uuid: AgentId
    tenant_id: TenantId
    name: str
    state: str
    enabled: bool
    counter: int
    keys: list[_CachedKey]


class _DatabaseNow(msgspec.Struct, frozen=True):
    epoch: int
    horizon: int


DATABASE_NOW: Final = """
SELECT epoch, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon FROM sync_epoch
"""
# Every transaction that was open at the last refresh has an id at or above that refresh's horizon.
CHANGED: Final = """
SELECT s.agent_uuid, s.tenant_id, a.name, a.state, t.enabled, s.counter, coalesce(k.keys, '[]') AS keys
FROM agent_sync s JOIN agents a USING (agent_uuid) JOIN tenants t ON t.tenant_id = s.tenant_id
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(encode(digest, 'hex'), used_at IS NOT NULL, expires_at)) AS keys
    FROM agent_keys k WHERE k.agent_uuid = s.agent_uuid
) k ON true
WHERE s.changed >= %(since)s::text::xid8 AND (%(after)s::uuid IS NULL OR s.agent_uuid > %(after)s)
ORDER BY s.agent_uuid LIMIT %(page)s
"""


class AgentCache:
    """Follows the database; while that is unavailable, the last cached state counts as current."""

    def __init__(self, database: Database) -> None:
        """`database` must have access to every tenant."""
        self._database = database
        self._agents: dict[UUID, CachedAgent] = {}
        self._holders: dict[str, tuple[CachedAgent, _CachedKey]] = {}
        self._epoch = 0
        self._since = 0
        self._refreshed_at = -TRUSTED_SECONDS
        self._changed = asyncio.Event()

    @property
    def is_current(self) -> bool:
        """Whether the cache can be trusted: refreshed recently, or the database is unavailable."""
        return time.monotonic() - self._refreshed_at < TRUSTED_SECONDS or not self._database.breaker.is_closed

    def target_counter(self, agent: UUID) -> int | None:
        """Return the number of the agent's current target; None if the agent is not cached."""
        cached = self._agents.get(agent)
        return cached.counter if cached else None

    def key_holder(self, digest: bytes) -> KeyHolder | None:
        """Return the holder of the valid key with this digest, if it is cached and the key was used before."""
        holder = self._holders.get(digest.hex())
        if holder is None:
            return None
        agent, key = holder
        if not key.used or not agent.enabled or agent.state not in ("registered", "active"):
            return None
        if key.until is not None and key.until <= datetime.now(UTC):
            return None
        return KeyHolder(
            tenant_id=agent.tenant_id,
            agent_uuid=agent.agent_uuid,
            name=agent.name,
            state=agent.state,
            is_new=False,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh at each notification, and every `REFRESH_SECONDS` without one, until `stop`."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(stop), name="listen agent_sync")
            while not stop.is_set():
                self._changed.clear()
                try:
                    await self.refresh()
                except Unavailable:
                    await sleep(RETRY_SECONDS, stop)
                    continue
                await sleep(SPACING_SECONDS, stop)
                await wait_for_any(self._changed, stop, seconds=REFRESH_SECONDS)
            listening.cancel()

    async def _listen(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._database.listen(CHANNEL, self._changed)
            except Unavailable:
                await sleep(RETRY_SECONDS, stop)

    async def refresh(self) -> None:
        """Load what changed since the last refresh; raises `Unavailable`."""
        began = time.monotonic()
        async with self._database.transaction() as tx:
            now = await fetch_row(tx, _DatabaseNow, DATABASE_NOW)
            assert now is not None  # noqa: S101 the migration inserted the row
            reload = now.epoch != self._epoch
            rows = await self._read(tx, 0 if reload else self._since)
        if reload:
            self._agents, self._holders = {}, {}
            ms = round((time.monotonic() - began) * 1000)
            logger.bind(agents=len(rows), ms=ms).info("all agents were loaded into the cache")
        for row in rows:
            self._store(row)
        self._epoch, self._since, self._refreshed_at = now.epoch, now.horizon, began

    async def _read(self, tx: Tx, since: int) -> list[CachedAgent]:
        agents: list[CachedAgent] = []
        after: UUID | None = None
        while len(agents) < AGENTS_LIMIT:
            parameters: dict[str, Any] = {"since": str(since), "after": after, "page": PAGE_SIZE}
            rows = await fetch_rows(tx, CachedAgent, CHANGED, parameters)
            agents += rows
            if len(rows) < PAGE_SIZE:
                break
            after = rows[-1].agent_uuid
        return agents

    def _store(self, new: CachedAgent) -> None:
        old = self._agents.get(new.agent_uuid)
        if old is None and len(self._agents) >= AGENTS_LIMIT:
            return
        for key in old.keys if old else ():
            self._holders.pop(key.digest, None)
        self._agents[new.agent_uuid] = new
        for key in new.keys:
            self._holders[key.digest] = (new, key)
