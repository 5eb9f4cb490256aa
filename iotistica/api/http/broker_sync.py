"""Waits for the broker: who is told an account wants to use it at once."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from iotistica.errors import Unavailable
from iotistica.storage.agents import broker_accounts
from iotistica.storage.postgres import Database

LONGEST: Final = 1.5  # seconds; who is answered then finds the account soon after
EVERY: Final = 0.02  # seconds between looks, of all who wait together


class BrokerSync:
    """Knows how current the broker's accounts are."""

    def __init__(self, platform_database: Database) -> None:
        self._platform_database = platform_database
        self._looking = asyncio.Lock()
        self._looked = -EVERY
        self._at = datetime.min.replace(tzinfo=UTC)

    async def wait_until_current(self, since: datetime) -> None:
        """Return once the broker has the accounts as they were then, or after `LONGEST`; never raises.

        The public agent connects within 50 ms of the answer that lets it in. A refusal then costs it what it sets
        up with its first connection, until it is started again.
        """
        with suppress(TimeoutError, Unavailable):  # what is answered is committed, and told only once
            async with asyncio.timeout(LONGEST):
                while self._at < since and await self._is_ours():  # noqa: ASYNC110 it happens elsewhere
                    await asyncio.sleep(EVERY)

    async def _is_ours(self) -> bool:
        """Look how current the accounts are; False if nobody gives the broker any, so that nobody is waited for."""
        async with self._looking:
            if time.monotonic() - self._looked >= EVERY:
                async with self._platform_database.transaction() as tx:
                    last = await broker_accounts.last_render(tx)
                self._looked = time.monotonic()
                if last is None:
                    return False
                self._at = last.at
        return True
