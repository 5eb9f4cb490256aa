"""Stores a whole batch in one transaction; all readings enter the database this way."""

from collections.abc import Mapping

from iotistica.domain.ids import TenantId
from iotistica.ingest.batch import ReadingsBatch
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage.access.tenants import Tenant
from iotistica.storage.delivery import ledger, message_gaps
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import readings as table


async def store(
    database: Database, series_cache: SeriesCache, batch: ReadingsBatch, tenants: Mapping[TenantId, Tenant]
) -> table.StoreResult:
    """Store the series, readings and ledgers of a batch; its partitions must exist.

    Raises `Conflict` if some of its entries were stored before, and then stores nothing.
    """
    most_series = {t.tenant_id: t.quota_series for t in tenants.values() if t.quota_series is not None}
    rows = {agent: readings.values() for agent, readings in batch.rows.items()}
    async with database.transaction() as tx:
        await ledger.record_entries(tx, batch.entries)
        owners = {agent: count.tenant for agent, count in batch.counts.items()}
        learned, refused = await series_cache.write_new(tx, rows, owners, most_series)
        if refused:
            batch.reject("series_quota", lambda agent, reading: (agent, reading.metric_name) in refused)
        stored = await table.store(tx, rows, batch.counts, batch.repeats)
        if batch.rejections:
            await ledger.record_rejections(tx, batch.rejections)
        if batch.message_numbers:
            await message_gaps.add_numbers(tx, batch.message_numbers)
    series_cache.remember(learned)
    return stored
