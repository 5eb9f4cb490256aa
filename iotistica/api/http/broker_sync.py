"""Waits until the broker has the newest accounts, since agents use a new account at once."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from iotistica.errors import Unavailable
from iotistica.storage.agents import broker_accounts
from iotistica.storage.postgres import Database

LONGEST: Final = 1.5  # seconds; after that the request is answered, and the account follows soon
EVERY: Final = 0.02  # seconds between queries, shared by all waiting requests


class BrokerSync:
    """Tracks how current the broker's accounts are."""

    def __init__(self, platform_database: Database) -> None:
        self._platform_database = platform_database
        self._lock = asyncio.Lock()
        self._queried_at = -EVERY
        self._current_as_of = datetime.min.replace(tzinfo=UTC)

    async def wait_until_current(self, since: datetime) -> None:
        """Return once the broker has the accounts as of `since`, or after `LONGEST` seconds; never raises.

        The public agent connects within 50 ms of the answer with its account. If the broker refuses that first
        connection, the agent lacks what it sets up with it until it is restarted.
        """
        with suppress(
            TimeoutError, Unavailable
        ):  # the answer is committed and returned only once, so it must not fail
            async with asyncio.timeout(LONGEST):
                while self._current_as_of < since and await self._refresh():  # noqa: ASYNC110 another process renders the accounts
                    await asyncio.sleep(EVERY)

    async def _refresh(self) -> bool:
        """Query how current the accounts are; False if no process renders accounts, so waiting is useless."""
        async with self._lock:
            if time.monotonic() - self._queried_at >= EVERY:
                async with self._platform_database.transaction() as tx:
                    last = await broker_accounts.last_render(tx)
                self._queried_at = time.monotonic()
                if last is None:
                    return False
                self._current_as_of = last.at
        return True
