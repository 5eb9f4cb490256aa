"""Folds the rows of both ledgers (payloads and readings) into totals."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from iotistica.background.periodic_task import for_each
from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import ledger, stream_stats
from iotistica.storage.delivery.streams import KINDS
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

UNFOLDED: Final = timedelta(minutes=1)  # rows younger than this are not folded


async def fold(redis: Redis, database: Database, tenants: Sequence[TenantId], now: datetime) -> None:
    """Fold every tenant's rows that are older than `UNFOLDED`; raises `Unavailable`."""
    before = now - UNFOLDED

    async def fold_payloads(tenant: TenantId) -> None:
        pending = [id_ for kind in KINDS for id_ in await stream_stats.pending_entry_ids(redis, tenant, kind)]
        async with database.transaction() as tx:
            await ledger.fold_payloads(tx, tenant, before=before, still_open=pending)

    async with database.transaction() as tx:
        await ledger.fold_readings(tx, before=before)
    await for_each(tenants, fold_payloads)
