"""Presence of agents: derived from what they sent, regardless of pauses of the platform."""

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from iotistica.background import presence as presence_task
from iotistica.domain.agents.reported_state import ReportedState
from iotistica.domain.ids import AgentId, TenantId
from iotistica.mqtt import healing
from iotistica.storage.agents import presence, reported_states
from iotistica.storage.history import timeline
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.devices import Device, key_for
from tests.integration.telemetry.test_readings import NOW, reading, store
from tests.mqtt311 import Client311
from tests.serving import Served, until

SILENCE = timedelta(minutes=5)
POLLED = """
INSERT INTO agent_polls (agent_uuid, tenant_id, polled_at, polls, not_modified)
VALUES (%(agent)s, %(tenant)s, now(), 1, 0)
ON CONFLICT (agent_uuid) DO UPDATE SET polled_at = now()
"""


class Plant:
    """One agent: its presence checks, what it sends, and its clock."""

    def __init__(self, database: Database, redis: Redis, tenant: TenantId, agent: AgentId) -> None:
        self.database, self.redis, self.tenant, self.agent = database, redis, tenant, agent

    async def check(self) -> str | None:
        await presence_task.check(self.redis, self.database, (), SILENCE)
        async with self.database.transaction() as tx:
            found = await presence.get(tx, self.tenant, self.agent)
        return found.status if found else None

    async def send(self, second: int) -> None:
        await store(self.database, self.tenant, {self.agent: [reading(time=NOW + second)]})

    async def poll(self) -> None:
        async with self.database.transaction() as tx:
            await tx.execute(POLLED, {"agent": self.agent, "tenant": self.tenant})

    async def pass_minutes(self, minutes: float, *, looking: bool = True) -> None:
        """Let time pass for this agent, and for the platform too unless it was not `looking` meanwhile."""
        by = timedelta(minutes=minutes)
        async with self.database.transaction() as tx:
            for table, column in (
                *(("agent_presence", name) for name in ("data_at", "heard_at", "since", "healed_at")),
                ("agent_polls", "polled_at"),
                ("readings_ledger", "at"),
                ("agent_states", "reported_at"),
            ):
                await tx.execute(
                    f"UPDATE {table} SET {column} = {column} - %(by)s WHERE agent_uuid = %(agent)s",
                    {"by": by, "agent": self.agent},
                )
            await tx.execute(
                "UPDATE agent_presence SET turns = (SELECT coalesce(array_agg(t - %(by)s ORDER BY t), '{}')"
                " FROM unnest(turns) t) WHERE agent_uuid = %(agent)s",
                {"by": by, "agent": self.agent},
            )
            column = "since" if looking else "looked_at"
            await tx.execute(f"UPDATE presence_watch SET {column} = {column} - %(by)s", {"by": by})

    async def kinds(self) -> list[str]:
        async with self.database.transaction() as tx:
            rows = await timeline.page(tx, self.tenant, self.agent, before=None, kinds=None, limit=100)
        return [row.kind for row in reversed(rows) if row.kind.startswith("presence.")]


@pytest.fixture
async def plant(database: Database, redis: Redis, tenant: TenantId, agent: AgentId) -> AsyncIterator[Plant]:
    await redis.set("lease:intake", "somebody")
    plant = Plant(database, redis, tenant, agent)
    await plant.check()
    yield plant
    await redis.delete("lease:intake")


async def test_an_agent_is_online_by_its_data_and_offline_after_a_silence(plant: Plant) -> None:
    """Each change is on the timeline once."""
    assert await plant.check() is None
    await plant.send(1)
    assert await plant.check() == "online"
    await plant.pass_minutes(4.9)
    assert await plant.check() == "online"
    await plant.pass_minutes(0.2)
    assert await plant.check() == "offline"
    await plant.send(2)
    assert await plant.check() == "online"
    assert await plant.check() == "online"
    assert await plant.kinds() == ["presence.online", "presence.offline", "presence.online"]


async def test_an_agent_that_polls_and_sends_nothing_is_silent(plant: Plant) -> None:
    """A poll is a sign of life, but not data."""
    await plant.poll()
    assert await plant.check() == "offline"
    await plant.send(1)
    assert await plant.check() == "online"
    await plant.pass_minutes(6)
    await plant.poll()
    assert await plant.check() == "online"  # the public agent reports every five or six minutes
    await plant.pass_minutes(2)
    await plant.poll()
    assert await plant.check() == "silent"
    await plant.pass_minutes(6)
    assert await plant.check() == "offline"


async def test_the_platforms_own_pause_makes_nobody_offline(plant: Plant) -> None:
    """Neither do a time without an intake, and messages that wait; only a silence while the platform accepted messages."""
    await plant.send(1)
    assert await plant.check() == "online"
    await plant.pass_minutes(600, looking=False)
    assert await plant.check() == "online"
    await plant.pass_minutes(4)
    assert await plant.check() == "online"
    await plant.redis.delete("lease:intake")
    assert await plant.check() == "online"
    await plant.redis.set("lease:intake", "somebody")
    await plant.pass_minutes(4.9)
    assert await plant.check() == "online"
    await plant.pass_minutes(0.2)
    await presence_task.check(plant.redis, plant.database, [plant.tenant], SILENCE)
    assert "presence.offline" not in await plant.kinds()
    assert await plant.check() == "offline"


async def test_one_that_comes_and_goes_is_told_once(plant: Plant) -> None:
    """An agent that changes too often is recorded as flapping once, until it is steady for half an hour."""
    for number in range(5):
        await plant.send(number)
        assert await plant.check() == "online"
        await plant.pass_minutes(6)
        assert await plant.check() == "offline"
    kinds = await plant.kinds()
    assert kinds[:5] == ["presence.online", "presence.offline"] * 2 + ["presence.online"]
    assert kinds[5:] == ["presence.flapping"]
    await plant.send(50)
    await plant.check()
    await plant.pass_minutes(31)
    await plant.send(51)
    assert await plant.check() == "online"
    assert (await plant.kinds())[6:] == ["presence.steady"]


async def test_a_silent_agent_is_healed_by_dropping_its_connection(server: Served) -> None:
    """The broker drops the agent's own connection, and it can reconnect at once; the next attempt comes later."""
    server.add_tenant("healing")
    device = Device(server).join(key_for(server.login("healing", "owner")))
    database = Database(
        server.runtime().database_url, size=2, name="test", role="iotistica_worker", statement_seconds=10
    )
    await database.open()
    try:
        client = device.connect()
        set_silent = (
            "INSERT INTO agent_presence (agent_uuid, tenant_id, status, since, heard_at)"
            " SELECT agent_uuid, tenant_id, 'silent', now() - interval '3 minutes', now() FROM agents WHERE agent_uuid = %(agent)s"
            " ON CONFLICT (agent_uuid) DO UPDATE SET status = 'silent', since = excluded.since, heard_at = now()"
        )
        async with database.transaction() as tx:
            await tx.execute(set_silent, {"agent": device.uuid})
        with contextlib.closing(client):
            until(lambda: _is_dropped(client), 30, "the connection is dropped")
        device.connect().close()
        async with database.transaction() as tx:
            assert await presence.claim_silent(tx, most=10) == []
    finally:
        await database.close()
    owner = server.login("healing", "owner")
    path = f"/agents/{device.uuid}/timeline"
    rows = until(lambda: owner.get(path, params={"kind": healing.HEALED}).json()["happenings"], what="it is told")
    assert rows[0]["details"] == {"attempt": 1, "outcome": "its connection was dropped"}


def _is_dropped(client: Client311) -> bool:
    try:
        client.ping()
    except OSError:
        return True
    return False


async def test_a_report_that_was_applied_late_is_heard(plant: Plant) -> None:
    """Its report time counts as the sign of life; its store time decides whether the check sees it as new."""
    await plant.send(1)
    assert await plant.check() == "online"
    await plant.pass_minutes(4)
    state = ReportedState(values={"version": 1}, stamps={"version": int((time.time() - 120) * 1e6)})
    async with plant.database.transaction() as tx:
        await reported_states.save(tx, plant.tenant, {plant.agent: state}, {})
    assert await plant.check() == "online"
    await plant.pass_minutes(2)
    assert await plant.check() == "online"
    await plant.pass_minutes(1.5)
    assert await plant.check() == "offline"


async def test_who_is_locked_out_is_offline(plant: Plant) -> None:
    """A retired agent is offline at once, as the platform accepts nothing more from it."""
    await plant.send(1)
    assert await plant.check() == "online"
    async with plant.database.transaction() as tx:
        await tx.execute("UPDATE agents SET state = 'retired' WHERE agent_uuid = %s", [plant.agent])
    assert await plant.check() == "offline"


async def test_one_that_is_healed_is_left_alone_for_a_while(plant: Plant) -> None:
    """An agent that sends every ten minutes is silent again and again, but is healed only a few times."""
    healed: list[list[int]] = []
    for _ in range(12):
        await plant.send(len(healed) + 2)
        await plant.check()
        await plant.pass_minutes(8)
        await plant.poll()
        assert await plant.check() == "silent"
        await plant.pass_minutes(3)
        async with plant.database.transaction() as tx:
            healed.append([one.heals for one in await presence.claim_silent(tx, most=10)])
    assert sum(map(len, healed)) <= 3
    assert healed[0] == [1]
    async with plant.database.transaction() as tx:  # after months the number of attempts must not overflow
        await tx.execute("UPDATE agent_presence SET heals = 2000000, healed_at = now() - interval '1 hour'")
        assert await presence.claim_silent(tx, most=10) == []


async def test_what_agents_say_of_jobs_and_themselves_is_heard(plant: Plant) -> None:
    """Messages about jobs and status count as data, logs only as a sign of life."""
    async with plant.database.transaction() as tx:
        await presence.record_activity(tx, plant.tenant, [plant.agent], data=False)
    assert await plant.check() == "offline"
    async with plant.database.transaction() as tx:
        await presence.record_activity(tx, plant.tenant, [plant.agent], data=True)
    assert await plant.check() == "online"
