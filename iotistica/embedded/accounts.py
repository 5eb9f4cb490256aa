"""Renders the broker's accounts into Mosquitto's password file, and tells it to read them."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.domain.accounts import SALT_BYTES, derive, password_line, service_password
from iotistica.embedded.home import Home
from iotistica.embedded.mosquitto import PROBE_USERS, SERVICE_USER
from iotistica.storage import agents
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep

EVERY: Final = 30.0  # seconds, should a notification be missed
SPACING: Final = 0.2  # seconds between reloads at least
CHANNEL: Final = "broker_accounts"


def own_lines(key: bytes) -> str:
    """The accounts of the platform itself, with which the broker first starts."""
    return "".join(
        password_line(name, service_password(key, name), derive(key, "salt", name)[:SALT_BYTES]) + "\n"
        for name in (SERVICE_USER, *PROBE_USERS)
    )


def first_lines(key: bytes, path: Path) -> str:
    """What the file must hold before the database can be asked: our accounts, and the agents known last time."""
    ours = (SERVICE_USER, *PROBE_USERS)
    old = path.read_text().splitlines(keepends=True) if path.exists() else []
    return own_lines(key) + "".join(line for line in old if line.partition(":")[0] not in ours)


class Accounts:
    """The password file, and the broker that reads it."""

    def __init__(
        self,
        home: Home,
        path: Path,
        *,
        key: bytes,
        database: Database,
        reload: Callable[[signal.Signals], None],
    ) -> None:
        self._home = home
        self._path = path
        self._own = own_lines(key)
        self._database = database
        self._reload = reload
        self._written = path.read_text()  # what the broker has read

    async def run(self, stop: asyncio.Event) -> None:
        """Render at once, at each notification and every `EVERY` seconds."""
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._database.listen(CHANNEL, changed), name="listen accounts")
            while not stop.is_set():
                await self.render()
                await sleep(SPACING, stop)
                await _first(changed, stop)
                changed.clear()
            listening.cancel()

    async def render(self) -> None:
        """Write the file and reload, if anything changed."""
        async with self._database.transaction() as tx:
            lines = await agents.broker_lines(tx)
        text = self._own + "".join(line + "\n" for line in lines)
        if text == self._written:
            return
        await asyncio.to_thread(self._home.write, self._path, text)
        self._reload(signal.SIGHUP)
        self._written = text
        logger.bind(accounts=len(lines)).info("broker accounts written")


async def _first(changed: asyncio.Event, stop: asyncio.Event) -> None:
    waits = [asyncio.create_task(changed.wait()), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(waits, timeout=EVERY, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
