"""Waits for the broker: who is told an account wants to use it at once."""

import asyncio
from datetime import datetime
from typing import Final

from iotistica.storage import broker_accounts
from iotistica.storage.postgres import Database

LONGEST: Final = 1.5  # seconds; who is answered then finds the account soon after
EVERY: Final = 0.02  # seconds between looks


async def awaited(lookups: Database, since: datetime) -> None:
    """Return once the broker has the accounts as they are since then, or after `LONGEST`.

    The public agent connects within 50 ms of the answer that lets it in. A refusal then costs it what it sets up
    with its first connection, until it is started again.
    """
    async with asyncio.timeout(LONGEST + 1):
        for _ in range(int(LONGEST / EVERY)):
            async with lookups.transaction() as tx:
                last = await broker_accounts.last_render(tx)
            if last is None or last.at >= since:  # none: the broker is not one of ours
                return
            await asyncio.sleep(EVERY)
