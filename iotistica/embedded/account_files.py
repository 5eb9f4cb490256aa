"""Writes the broker's accounts into Mosquitto's password and access files, and makes Mosquitto reload them."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from iotistica.domain.agents.broker_passwords import SALT_BYTES, password_line, service_password
from iotistica.domain.ids import encode_tenant
from iotistica.domain.key_derivation import derive
from iotistica.embedded.data_folder import DataFolder
from iotistica.embedded.mosquitto import ACL, OWN_USERS, BrokerFiles
from iotistica.instruments import RENDER_SECONDS
from iotistica.storage.agents import broker_accounts
from iotistica.storage.agents.broker_accounts import Account
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep, wait_for_any

EVERY: Final = 30.0  # seconds between renders if no notification arrives
SPACING: Final = 0.2  # minimum seconds between reloads


def own_lines(key: bytes) -> str:
    """Return the password lines of the platform's own accounts, with which the broker first starts."""
    return "".join(
        password_line(name, service_password(key, name), derive(key, "salt", name)[:SALT_BYTES]) + "\n"
        for name in OWN_USERS
    )


def first_lines(key: bytes, path: Path) -> str:
    """Return the password file until the database can be queried: the platform's accounts, and the last agents."""
    previous = path.read_text().splitlines(keepends=True) if path.exists() else []
    return own_lines(key) + "".join(line for line in previous if line.partition(":")[0] not in OWN_USERS)


def acl(users: Sequence[Account]) -> str:
    """Return the access file: the constant lines, and one block for each broker user that a tenant created."""
    blocks = [ACL]
    for user in users:
        assert user.tenant_id is not None  # noqa: S101 an account of a tenant
        root = f"i/{encode_tenant(user.tenant_id)}/"
        rules = "".join(f"topic {rule.access} {root}{rule.topic}\n" for rule in user.rules or ())
        blocks.append(f"\nuser {user.username}\n{rules}")
    return "".join(blocks)


class AccountFiles:
    """Keeps the password and access files current, and makes the broker reload them."""

    def __init__(
        self,
        home: DataFolder,
        files: BrokerFiles,
        *,
        key: bytes,
        database: Database,
        reload: Callable[[signal.Signals], None],
    ) -> None:
        self._home = home
        self._own = own_lines(key)
        self._database = database
        self._reload = reload
        self._written = {path: path.read_text() for path in (files.passwords, files.acl)}  # as the broker read them
        self._files = files
        self._is_rendered = False  # since the start; other processes read the time of the last render

    async def run(self, stop: asyncio.Event) -> None:
        """Render at once, after each notification and every `EVERY` seconds, until `stop`."""
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(
                self._database.listen(broker_accounts.CHANNEL, changed), name="listen accounts"
            )
            while not stop.is_set():
                if await self.render():
                    await sleep(SPACING, stop)
                await wait_for_any(changed, stop, seconds=EVERY)
                changed.clear()
            listening.cancel()

    async def render(self) -> bool:
        """Write the files and make the broker reload them if the accounts changed; return whether it reloaded."""
        began = time.monotonic()
        async with self._database.transaction() as tx:
            read_at = await broker_accounts.database_now(tx)
            lines = await broker_accounts.password_lines(tx)
            users = await broker_accounts.users_with_rules(tx)
        wanted = {
            self._files.passwords: self._own + "".join(line + "\n" for line in lines),
            self._files.acl: acl(users),
        }
        changed = {path: text for path, text in wanted.items() if text != self._written[path]}
        if not changed and self._is_rendered:
            return False
        for path, text in changed.items():
            await asyncio.to_thread(self._home.write, path, text)
        self._reload(signal.SIGHUP)
        self._written, self._is_rendered = wanted, True
        seconds = time.monotonic() - began
        RENDER_SECONDS.record(seconds)
        logger.bind(accounts=len(lines), ms=round(seconds * 1000)).info("broker accounts written")
        async with self._database.transaction() as tx:
            await broker_accounts.record_render(tx, at=read_at, accounts=len(lines), seconds=seconds)
        return True
