"""Makes partitions ahead, drops those past their age, folds the ledgers, tidies up; under one lease."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from loguru import logger

from iotistica.alarms import Alarms
from iotistica.background import delivery, leftovers
from iotistica.storage import lease, ledger, partitions, stream_states
from iotistica.storage.directory import Directory
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.storage.streams import KINDS
from iotistica.supervise import sleep

EVERY: Final = 20.0  # seconds between rounds
UNFOLDED: Final = timedelta(minutes=1)  # ledger rows younger than this stay single


async def run(
    stop: asyncio.Event,
    *,
    redis: Redis,
    database: Database,
    directory: Directory,
    retention_days: int,
    alarms: Alarms,
) -> None:
    """Do a round at once and then every `EVERY` seconds, for as long as the lease is ours."""
    async with lease.held(redis, "background", stop) as fence:
        while fence is not None and not stop.is_set():
            now = datetime.now(UTC)
            await _partitions(database, now, retention_days)
            await _ledgers(redis, database, directory, now)
            await leftovers.remove(database, now)
            await delivery.look(redis, database, sorted(await directory.tenants()), alarms, now)
            await sleep(EVERY, stop)


async def _partitions(database: Database, now: datetime, retention_days: int) -> None:
    ahead = {now.date() + timedelta(days=days) for days in range(-1, partitions.AHEAD)}
    async with database.transaction() as tx:
        missing = ahead - await partitions.existing(tx)
    await partitions.make(database, missing)
    oldest = now.date() - timedelta(days=retention_days)
    if dropped := await partitions.drop_before(database, oldest):
        logger.bind(days=len(dropped), before=str(oldest)).info("dropped readings past their age")


async def _ledgers(redis: Redis, database: Database, directory: Directory, now: datetime) -> None:
    before = now - UNFOLDED
    async with database.transaction() as tx:
        await ledger.fold(tx, before=before)
    for tenant in await directory.tenants():
        still_open = [id_ for kind in KINDS for id_ in await stream_states.open_ids(redis, tenant, kind)]
        async with database.transaction() as tx:
            await ledger.fold_payloads(tx, tenant, before=before, still_open=still_open)
