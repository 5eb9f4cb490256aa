"""Starts the embedded servers where no URL configures an external one, watches them, and stops them in order."""

import asyncio
import contextlib
import os
import time
from collections.abc import Collection, Iterator
from typing import Final

import msgspec
from loguru import logger

from iotistica.domain.agents.broker_passwords import SERVICE_USER, service_password
from iotistica.domain.key_derivation import derive
from iotistica.embedded import data_folder as homes
from iotistica.embedded import mosquitto, postgres, valkey
from iotistica.embedded.account_files import first_lines
from iotistica.embedded.child_process import ChildProcess, end_leftovers
from iotistica.embedded.data_folder import DataFolder, Runtime
from iotistica.embedded.mosquitto import BrokerFiles
from iotistica.settings import Settings, in_url
from iotistica.supervise import sleep

WATCH: Final = 0.2  # seconds between checks of the children
SLOWEST_RESTART: Final = 3.0  # longest wait between restarts, in seconds
ALL: Final = ("postgres", "redis", "broker")


class Servers:
    """The embedded servers that run as children, and the URLs of all servers."""

    def __init__(self, home: DataFolder, settings: Settings, key: bytes) -> None:
        self.home = home
        self.database_url = settings.database_url
        self.redis_url = settings.redis_url
        self.mqtt_url = settings.mqtt_url
        self.files: BrokerFiles | None = None
        self.broker: ChildProcess | None = None
        self.children: list[ChildProcess] = []
        self._key = key
        self._settings = settings

    def start(self, wanted: Collection[str]) -> None:
        """Start the wanted servers that have no configured URL, all at once, and wait until all are ready."""
        if not self.database_url and "postgres" in wanted:
            child, self.database_url = postgres.prepare(self.home, derive(self._key, "postgres").hex())
            self.children.append(child)
        if not self.redis_url and "redis" in wanted:
            child, self.redis_url = valkey.prepare(self.home, derive(self._key, "redis").hex())
            self.children.append(child)
        if not self.mqtt_url and "broker" in wanted:
            listen, port = self._settings.listen, self._settings.mqtt_port
            self.broker, self.files = mosquitto.prepare(
                self.home,
                listen=listen,
                port=port,
                local=self._settings.local_host,
                queue=self._settings.broker_queue_mb << 20,
            )
            self.children.append(self.broker)
            self.home.write(self.files.passwords, first_lines(self._key, self.files.passwords))
            password = service_password(self._key, SERVICE_USER)
            self.mqtt_url = f"mqtt://{SERVICE_USER}:{password}@{in_url(self._settings.local_host)}:{port}"
        for child in self.children:
            child.start()
        for child in self.children:
            child.await_ready()
        self.write_runtime_file()

    def write_runtime_file(self) -> None:
        """Write URLs and process ids to runtime.json, for other commands and for the start after a crash."""
        runtime = Runtime(
            pid=os.getpid(),
            database_url=self.database_url,
            redis_url=self.redis_url,
            mqtt_url=self.mqtt_url,
            children={child.name: child.pid for child in self.children},
            settings=self._settings.shareable(),
        )
        path = self.home.path / "runtime.json"
        temporary = path.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_bytes(msgspec.json.encode(runtime))
        temporary.replace(path)

    async def watch(self, stop: asyncio.Event) -> None:
        """Restart each child that ends, on the same port, until `stop`."""
        wait, started = WATCH, time.monotonic()
        while not stop.is_set():
            for child in self.children:
                if child.is_running():
                    continue
                logger.bind(server=child.name, by=child.ending, log_tail=child.log_tail()).error(
                    "server ended; restarting it"
                )
                wait = WATCH if time.monotonic() - started > 30 else min(wait * 2, SLOWEST_RESTART)
                started = time.monotonic()
                child.start()  # in this thread: the kernel ends a child when the thread that started it ends
                self.write_runtime_file()
                await sleep(wait, stop)
            for child in self.children:
                child.bound_log()
            await sleep(WATCH, stop)

    def stop(self) -> None:
        """Stop the children, the broker first and the database last."""
        for child in reversed(self.children):
            child.stop()


@contextlib.contextmanager
def running(settings: Settings, key: bytes, wanted: Collection[str] = ALL) -> Iterator[Servers]:
    """Run the wanted servers that have no configured URL for the block; raises `CannotStart`."""
    path = settings.data_path
    with homes.claimed(path):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            before = msgspec.json.decode((path / "runtime.json").read_bytes(), type=Runtime)
            end_leftovers(before.children, str(homes.open_home(path).servers))
        servers = Servers(homes.open_home(path), settings, key)
        try:
            servers.start(wanted)
            yield servers
        finally:
            servers.stop()
            (path / "runtime.json").unlink(missing_ok=True)
