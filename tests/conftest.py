"""Fixtures that many tests share."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import hypothesis
import pytest

from iotistica.domain.ids import AgentId, TenantId
from iotistica.embedded import data_folder
from iotistica.embedded import servers as embedded
from iotistica.embedded.account_files import AccountFiles
from iotistica.settings import Settings
from iotistica.storage import redis as redis_
from iotistica.storage import schema
from iotistica.storage.access import tenants
from iotistica.storage.agents import agents
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests import databases
from tests.serving import Served, free_port, new_data_folder, served

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci")

for name in [name for name in os.environ if name.startswith("IOTISTICA_") and "TEST" not in name]:
    del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that mean another database server than the named one."""
    if not databases.server_url():
        return
    reasons = {"built_in_postgres": "means the built-in PostgreSQL"}
    if any(item.get_closest_marker("plain_postgres") for item in items) and databases.has_timescale():
        reasons["plain_postgres"] = "means PostgreSQL without TimescaleDB"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    """One instance for all tests that make a tenant of their own in it."""
    with served() as running:
        yield running


class Stack:
    """PostgreSQL, Valkey and Mosquitto without any process of ours."""

    def __init__(self, settings: Settings, key: bytes, servers: embedded.Servers) -> None:
        self.settings = settings
        self.key = key
        self.servers = servers
        self.database_url = servers.database_url
        self.redis_url = servers.redis_url
        self.mqtt_url = servers.mqtt_url

    def urls(self) -> dict[str, str]:
        """The environment of a process that uses these servers."""
        return {
            "IOTISTICA_DATABASE_URL": self.database_url,
            "IOTISTICA_REDIS_URL": self.redis_url,
            "IOTISTICA_MQTT_URL": self.mqtt_url,
            "IOTISTICA_SECRET_KEY": self.key.hex(),
        }

    def render_accounts(self) -> None:
        """Give the broker the accounts that are in the database, as the process beside it does."""
        asyncio.run(self._render())

    async def _render(self) -> None:
        assert self.servers.files is not None
        assert self.servers.broker is not None
        database = Database(self.database_url, size=1, name="render", role="iotistica_worker", statement_seconds=10)
        await database.open()
        reload = self.servers.broker.signal
        await AccountFiles(
            self.servers.home, self.servers.files, key=self.key, database=database, reload=reload
        ).render()
        await database.close()


@contextlib.contextmanager
def new_stack() -> Iterator[Stack]:
    """Servers on a new data folder, with the schema in place."""
    with new_data_folder() as folder:
        settings = Settings(
            data_dir=str(folder),
            mqtt_port=free_port(),
            http_port=free_port(),
            database_url=databases.of_folder(folder),
        )
        key = data_folder.server_key(folder)
        with embedded.running(settings, key) as servers:
            schema.migrate(servers.database_url)
            yield Stack(settings, key, servers)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Servers for all tests that keep to tenants, keys and topics of their own."""
    with new_stack() as running:
        yield running


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    """A pool like the workers'."""
    database = databases.worker_pool(stack.database_url, size=6)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    """A client of Valkey."""
    client = redis_.client(stack.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def tenant(database: Database) -> TenantId:
    """A new tenant."""
    async with database.transaction() as tx:
        return (await tenants.add(tx, f"tenant {uuid4()}", by=PLATFORM)).tenant_id


@pytest.fixture
async def agent(database: Database, tenant: TenantId, stack: Stack) -> AgentId:
    """A new agent of the tenant."""
    new = AgentId(uuid4())
    async with database.transaction() as tx:
        await agents.add(tx, tenant, new, "an agent", key=stack.key, by=PLATFORM)
    return new
