"""Checks of message delivery: parked messages, message numbers, dead letters, ledgers and dead consumers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from iotistica.background.periodic_task import for_each
from iotistica.domain.ids import TenantId
from iotistica.instruments import IMBALANCE
from iotistica.platform_alarms import Alarms
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

UNFOLDED: Final = timedelta(minutes=1)  # message numbers younger than this are not merged
KEPT: Final = timedelta(days=30)  # how long message numbers are kept, for the report of gaps
PORTIONS: Final = 100  # of up to AGENTS_LIMIT agents whose message numbers are merged in one run
NEARLY_FULL: Final = 0.8  # share of the limit of dead letters above which an alarm is raised


async def merge_message_runs(database: Database, now: datetime) -> None:
    """Merge the numbers of arrived messages into runs, for the report of gaps."""
    for _ in range(PORTIONS):
        async with database.transaction() as tx:
            if (
                await message_gaps.merge_runs(tx, before=now - UNFOLDED, oldest=now - KEPT)
                < message_gaps.AGENTS_LIMIT
            ):
                break


async def delete_gone_consumers(redis: Redis, tenants: Sequence[TenantId]) -> None:
    """Delete the consumers of processes that no longer run from the groups of every tenant's streams."""
    await for_each(tenants, lambda tenant: streams.delete_gone_consumers(redis, tenant))


async def release_parked(redis: Redis, database: Database, tenants: Sequence[TenantId], now: datetime) -> None:
    """Release every tenant's parked messages whose dictionary has arrived, and expire those that are too old."""
    await for_each(tenants, lambda tenant: _release_parked(redis, database, tenant, now))


async def _release_parked(redis: Redis, database: Database, tenant: TenantId, now: datetime) -> None:
    """Release the messages whose dictionary arrived while they were being parked; expire old ones."""
    waiting = await parked_messages.awaited_dictionaries(redis, tenant)
    if not waiting:
        return
    revisions: dict[tuple[UUID, int], int] = {}
    async with database.transaction() as tx:
        for agent, version in waiting:
            dictionary = await dictionaries.get(tx, tenant, agent, version)
            revisions[agent, version] = dictionary.revision
            cached = await dictionaries.cached_revision(redis, tenant, agent, version)
            if dictionary.revision > (cached or 0):  # the consumer that stored it was killed before it cached it
                await dictionaries.cache(redis, tenant, agent, version, dictionary)
    await parked_messages.release(
        redis, tenant, lambda agent, version, known: revisions.get((agent, version), 0) > known
    )
    await parked_messages.expire(redis, tenant, now=now.timestamp())


async def check_dead_letters(redis: Redis, tenants: Sequence[TenantId], alarms: Alarms, now: datetime) -> None:
    """Raise an alarm while a tenant's dead letters are near their limit, or were stored without their payload."""
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
        f"the dead letters of {', '.join(full[:5])} are near their limit, above which payloads are not kept:"
        " inspect them, then replay or discard them"
        if full
        else None,
    )


async def check_ledgers(redis: Redis, database: Database, tenants: Sequence[TenantId], alarms: Alarms) -> None:
    """Raise an alarm while a ledger does not balance; must not run while the ledgers are being folded."""
    payloads = readings = 0
    unbalanced: list[str] = []
    for tenant in tenants:
        off = await ledger_balance.payload_imbalance(redis, database, tenant) or 0
        if off:
            # Another process may have folded the ledger during the first check.
            off = await ledger_balance.payload_imbalance(redis, database, tenant) or 0
        missing = await ledger_balance.reading_imbalance(database, tenant)
        payloads += abs(off)
        readings += missing
        if off or missing:
            unbalanced.append(f"{tenant} ({off} messages, {missing} readings)")
    IMBALANCE.set(payloads, {"ledger": "payloads"})
    IMBALANCE.set(readings, {"ledger": "readings"})
    alarms.set(
        "ledger_imbalance",
        f"the ledgers do not balance for {', '.join(unbalanced[:5])};"
        " Redis or the database has lost data that it had acknowledged"
        if unbalanced
        else None,
    )
