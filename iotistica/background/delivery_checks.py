"""Watches over what waits: parked messages, numbers of messages, dead letters, ledgers, consumers that are gone."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from iotistica.alarms import Alarms
from iotistica.background.periodic_task import for_each
from iotistica.domain.ids import TenantId
from iotistica.instruments import IMBALANCE
from iotistica.storage.delivery import (
    dead_letters,
    dictionaries,
    ledger_balance,
    message_gaps,
    parked_messages,
    stream_stats,
    streams,
)
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

UNFOLDED: Final = timedelta(minutes=1)  # numbers younger than this stay single
KEPT: Final = timedelta(days=30)  # of what arrived, for the report of gaps
PORTIONS: Final = 100  # of agents whose numbers are joined in one look
NEARLY_FULL: Final = 0.8  # share of the cap of dead letters that is an alarm


async def merge_message_runs(database: Database, now: datetime) -> None:
    """Join the message numbers that arrived into runs, for the report of gaps."""
    for _ in range(PORTIONS):
        async with database.transaction() as tx:
            if (
                await message_gaps.merge_runs(tx, before=now - UNFOLDED, oldest=now - KEPT)
                < message_gaps.AGENTS_LIMIT
            ):
                break


async def delete_gone_consumers(redis: Redis, tenants: Sequence[TenantId]) -> None:
    """Delete the consumers of processes that are gone from the groups of every tenant's streams."""
    await for_each(tenants, lambda tenant: streams.delete_gone_consumers(redis, tenant))


async def release_parked(redis: Redis, database: Database, tenants: Sequence[TenantId], now: datetime) -> None:
    """Release parked messages whose dictionary has come, and expire those that waited too long; of every tenant."""
    await for_each(tenants, lambda tenant: _release_parked(redis, database, tenant, now))


async def _release_parked(redis: Redis, database: Database, tenant: TenantId, now: datetime) -> None:
    """Release what a dictionary has come for while it was being parked; give up what waited too long."""
    waiting = await parked_messages.awaited_dictionaries(redis, tenant)
    if not waiting:
        return
    revisions: dict[tuple[UUID, int], int] = {}
    async with database.transaction() as tx:
        for agent, version in waiting:
            known = await dictionaries.get(tx, tenant, agent, version)
            revisions[agent, version] = known.revision
            copied = await dictionaries.cached_revision(redis, tenant, agent, version)
            if known.revision > (copied or 0):  # whoever learnt it was killed before it could tell
                await dictionaries.cache(redis, tenant, agent, version, known)
    await parked_messages.release(
        redis, tenant, lambda agent, version, known: revisions.get((agent, version), 0) > known
    )
    await parked_messages.expire(redis, tenant, now=now.timestamp())


async def check_dead_letters(redis: Redis, tenants: Sequence[TenantId], alarms: Alarms, now: datetime) -> None:
    """Raise an alarm while the dead letters of a tenant are near their limit."""
    states = await stream_stats.stream_stats(redis, tenants, now=now.timestamp())
    full = [
        tenant
        for tenant, state in zip(tenants, states, strict=True)
        if state.dead > NEARLY_FULL * dead_letters.TENANT_LIMIT
        or state.dead_bytes > NEARLY_FULL * dead_letters.TENANT_BYTES_LIMIT
        or state.dead_unkept
    ]
    alarms.set(
        "dead_letters",
        f"the dead letters of {', '.join(full[:5])} are near their cap, beyond which only heads are kept:"
        " look at them, then replay or discard them"
        if full
        else None,
    )


async def check_ledgers(redis: Redis, database: Database, tenants: Sequence[TenantId], alarms: Alarms) -> None:
    """Raise an alarm while a ledger does not balance. Not to be called while the ledgers are being folded."""
    payloads = readings = 0
    wrong: list[str] = []
    for tenant in tenants:
        off = await ledger_balance.payload_imbalance(redis, database, tenant) or 0
        if off:
            off = (
                await ledger_balance.payload_imbalance(redis, database, tenant) or 0
            )  # a folding elsewhere came between
        missing = await ledger_balance.reading_imbalance(database, tenant)
        payloads += abs(off)
        readings += missing
        if off or missing:
            wrong.append(f"{tenant} ({off} messages, {missing} readings)")
    IMBALANCE.set(payloads, {"ledger": "payloads"})
    IMBALANCE.set(readings, {"ledger": "readings"})
    alarms.set(
        "ledger_imbalance",
        f"the ledgers do not know what became of everything: {', '.join(wrong[:5])};"
        " Redis or the database has lost what it had acknowledged"
        if wrong
        else None,
    )
