"""Servers, processes of the platform, proxies between them, and what is counted at each place."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from iotistica.embedded.child_process import ChildProcess
from iotistica.errors import Unavailable
from iotistica.simulate import fleet
from iotistica.storage import redis as redis_
from iotistica.storage.delivery import ledger, ledger_balance, stream_stats
from iotistica.storage.postgres import Database
from tests.chaos.load import READINGS, Load, name_of
from tests.chaos.proxy import Acknowledgements, Proxy
from tests.conftest import Stack
from tests.serving import Served

WHOLE: Sequence[str] = ()
"""All roles in one process."""
APART = ("mqtt", "ingest", "http,background")


class Row(NamedTuple):
    """What a fault has cost; messages, and seconds from the recovery to the last of them."""

    name: str
    times: int
    published: int
    acked_to_publisher: int
    acked_by_platform: int
    stored: int
    duplicate: int
    lost_by_platform: int
    lost_by_publisher: int
    stored_twice: int
    seconds: float


class Plant:
    """Everything on one machine, each part where it can be killed by itself."""

    def __init__(
        self, stack: Stack, folder: Path, mqtt: Proxy, redis: Proxy, acknowledgements: Acknowledgements
    ) -> None:
        self.stack = stack
        self.mqtt_proxy = mqtt
        self.redis_proxy = redis
        self._folder = folder
        self._acknowledgements = acknowledgements
        self.processes: dict[str, Served] = {}
        self._load: Load | None = None
        self._members: list[fleet.SimulatedAgent] = []
        self._tenant = ""

    def child(self, name: str) -> ChildProcess:
        """One of the servers: postgres, redis or mosquitto."""
        return next(child for child in self.stack.servers.children if child.name == name)

    def kill(self, name: str) -> None:
        """End a server without a word."""
        child = self.child(name)
        child.signal(signal.SIGKILL)
        while child.is_running():
            time.sleep(0.01)

    async def revive(self, name: str) -> None:
        """Start a server again and wait until it answers."""
        child = self.child(name)
        while True:
            if not child.is_running():
                child.start()
            with contextlib.suppress(OSError):
                if await asyncio.to_thread(child._is_ready):
                    return
            await asyncio.sleep(0.05)

    async def start(self, roles: Sequence[str] = WHOLE, **environment: str) -> None:
        """Start the platform: one process for each item of `roles`, or a whole one."""
        for role in roles or ("",):
            folder = self._folder / (role.replace(",", "-") or "whole")
            folder.mkdir(exist_ok=True)
            urls = self.stack.urls() | {
                "IOTISTICA_MQTT_URL": _through(self.stack.mqtt_url, self.mqtt_proxy),
                "IOTISTICA_REDIS_URL": _through(self.stack.redis_url, self.redis_proxy),
            }
            self.processes[role] = Served(folder, **urls, **environment)
            self._launch(role)
        for role in self.processes:
            await self.ready(role)

    def _launch(self, role: str) -> None:
        self.processes[role].start(*(("--roles", role) if role else ()))

    async def ready(self, role: str) -> None:
        """Wait until a process of the platform says it is."""
        process = self.processes[role]
        port = process.http_port if role == "" or "http" in role else process.ops_port
        await asyncio.to_thread(process.ready, port, 60)

    async def kill_process(self, role: str = "", *, down: float = 0.5) -> None:
        """Kill a process of the platform, and start it again after so many seconds."""
        self.processes[role].kill()
        await asyncio.sleep(down)
        self._launch(role)

    async def restart_process(self, role: str = "") -> None:
        """End a process of the platform as a roll-out does, and start it again."""
        assert await asyncio.to_thread(self.processes[role].stop) == 0, self.processes[role].text()[-3000:]
        self._launch(role)

    async def end(self) -> None:
        """End all processes of the platform, in their own time."""
        for process in self.processes.values():
            if process.process is not None and process.process.poll() is None:
                await asyncio.to_thread(process.stop)
        self.processes.clear()

    async def load(self, *, agents: int = 10, a_second: float = 20.0, readings: int = READINGS) -> Load:
        """Agents of a new tenant that publish from now on."""
        async with self._database() as database:
            self._tenant = f"chaos {uuid4()}"
            self._members = await fleet.create_agents(database, self.stack.key, self._tenant, agents)
        await self.stack._render()
        await asyncio.sleep(0.5)
        port = self.stack.settings.mqtt_port
        self._load = Load(self._members, port, a_second=a_second, readings=readings)
        return self._load

    async def reckon(self, name: str, times: int, *, within: float = 60.0, readings: int = READINGS) -> Row:
        """Stop publishing and everything that is broken being whole again: wait for the rest, and count."""
        assert self._load is not None
        await self._load.stop()
        tenant = self._members[0].tenant
        async with self._database() as database:
            await self._answering(database, within)
            began = last = time.monotonic()
            seen = -1
            redis = redis_.client(self.stack.redis_url)
            while time.monotonic() - last < within:
                async with database.transaction() as tx:
                    counted = await ledger.readings_balance(tx, tenant, None)
                (state,) = await stream_stats.stream_stats(redis, [tenant], now=time.time())
                if counted.found != seen:
                    seen, last = counted.found, time.monotonic()
                stored = counted.stored
                if not state.waiting and stored >= len(self._load.acked) * readings and time.monotonic() - last > 2:
                    break
                await asyncio.sleep(0.1)
            async with database.transaction() as tx:
                cursor = await tx.execute(
                    "SELECT r.agent_uuid || ':' || (r.value::bigint), count(*) FROM readings r JOIN agents a"
                    " USING (agent_uuid) WHERE a.tenant_id = %(tenant)s GROUP BY 1",
                    {"tenant": tenant},
                )
                rows: dict[str, int] = dict(await cursor.fetchall())
            off = await ledger_balance.payload_imbalance(redis, database, tenant)
            missing = await ledger_balance.reading_imbalance(database, tenant)
            await redis.aclose()
        assert (off, missing) == (0, 0), f"the ledgers are off: {off} messages, {missing} readings"
        assert all(count >= readings for count in rows.values())
        stored_names = set(rows)
        mine = {str(member.agent) for member in self._members}
        acked = {name for name in self._acknowledgements.acked if name.split(":")[0] in mine}
        assert stored_names <= self._load.published
        return Row(
            name=name,
            times=times,
            published=len(self._load.published),
            acked_to_publisher=len(self._load.acked),
            acked_by_platform=len(acked),
            stored=len(stored_names),
            duplicate=counted.duplicate // readings,
            lost_by_platform=len(acked - stored_names),
            lost_by_publisher=len(self._load.acked - stored_names),
            stored_twice=sum(count > readings for count in rows.values()),
            seconds=round(max(last - began, 0.0), 1),
        )

    async def _answering(self, database: Database, seconds: float) -> None:
        """Wait until PostgreSQL answers: after a kill it first reads its log again."""
        end = time.monotonic() + seconds
        while True:
            try:
                async with database.transaction():
                    return
            except Unavailable:
                if time.monotonic() > end:
                    raise

    @contextlib.asynccontextmanager
    async def _database(self) -> AsyncIterator[Database]:
        database = Database(
            self.stack.database_url, size=2, name="chaos", role="iotistica_worker", statement_seconds=60
        )
        await database.open()
        try:
            yield database
        finally:
            await database.close()


def _through(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}").geturl()


@contextlib.asynccontextmanager
async def plant(stack: Stack, folder: Path) -> AsyncIterator[Plant]:
    """Proxies before the broker and Redis; the platform is started by whoever asked for this."""
    read = Acknowledgements(name_of)
    redis_port = urlsplit(stack.redis_url).port
    assert redis_port is not None
    async with Proxy(stack.settings.mqtt_port, up=read.up, down=read.down) as mqtt, Proxy(redis_port) as redis:
        made = Plant(stack, folder, mqtt, redis, read)
        try:
            yield made
        finally:
            await made.end()


def mounted(folder: Path, size: str) -> bool:
    """A small file system of its own there, where this user may make one."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    return done.returncode == 0
