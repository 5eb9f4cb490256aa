"""The MQTT client against a real Mosquitto."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from iotistica.domain.agents.broker_passwords import WATCH_USER, mqtt_password, service_password
from iotistica.domain.ids import AgentId, TenantId, agent_topic, agent_user
from iotistica.embedded import mosquitto
from iotistica.errors import CannotStart, Superseded, Unavailable
from iotistica.mqtt import access_probe, broker_watch
from iotistica.mqtt.client import Client, connect
from iotistica.mqtt.protocol import PAUSE_BYTES
from iotistica.platform_alarms import Alarms
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from tests.conftest import Stack, new_stack

SECONDS = 20


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Separate servers for this file, so that it does not inherit sessions or leases of other tests."""
    with new_stack() as running:
        yield running


async def test_the_brokers_figures_are_watched(stack: Stack, database: Database, redis: Redis) -> None:
    """The account with access receives them, and a queue near its limit raises an alarm that says what to do."""
    stop, alarms = asyncio.Event(), Alarms()
    account = WATCH_USER, service_password(stack.key, WATCH_USER)
    seen = broker_watch.BrokerWatch(alarms, limit=1)
    url = access_probe.as_account(stack.mqtt_url, account)
    tally = TimelineCounts(database)
    watching = asyncio.create_task(broker_watch.run(url, seen, redis, tally, stop))
    async with asyncio.timeout(SECONDS):
        while "broker_queue" not in alarms.raised:
            seen._limit = 1
            await asyncio.sleep(0.1)
    assert "IOTISTICA_BROKER_QUEUE_MB" in alarms.raised["broker_queue"]
    stop.set()
    await watching
    foreign = access_probe.as_account(stack.mqtt_url, (WATCH_USER, "wrong"))
    unwatched = asyncio.create_task(
        broker_watch.run(foreign, broker_watch.BrokerWatch(alarms, limit=1), redis, tally, stop)
    )
    await asyncio.wait_for(unwatched, SECONDS)


def test_dropped_messages_are_an_alarm_for_a_while() -> None:
    """Messages dropped before the watch started raise no alarm; messages dropped later do."""
    now = 0.0
    alarms = Alarms()
    seen = broker_watch.BrokerWatch(alarms, limit=1000, clock=lambda: now)
    for payload in (b"7", b"7", b"nonsense"):
        seen.process(broker_watch.DROPPED, payload)
    assert not alarms.raised
    seen.process(broker_watch.DROPPED, b"8")
    assert set(alarms.raised) == {"broker_dropped"}
    now = broker_watch.REMEMBERED
    seen.process(broker_watch.DROPPED, b"8")
    seen.process(broker_watch.STORED, b"100")
    assert not alarms.raised
    seen.process(broker_watch.STORED, b"900")
    assert set(alarms.raised) == {"broker_queue"}


async def take(client: Client, count: int, *, ack: bool = True) -> list[bytes]:
    """Return the next payloads, and acknowledge them if `ack`."""
    got: list[bytes] = []
    async with asyncio.timeout(SECONDS):
        async for batch in client.batches(asyncio.Event()):
            got += [payload for _, _, payload in batch.messages]
            if ack:
                batch.ack()
            if len(got) >= count:
                return got
    raise AssertionError


def own_url(stack: Stack, tenant: TenantId, agent: AgentId) -> str:
    user = agent_user(tenant, agent).replace("/", "%2F")
    return f"mqtt://{user}:{mqtt_password(stack.key, tenant, agent, 1)}@127.0.0.1:{stack.settings.mqtt_port}"


@pytest.fixture
async def published(stack: Stack, tenant: TenantId, agent: AgentId) -> AsyncIterator[object]:
    """Return a context manager that yields a function to publish with the agent's account."""
    await stack._render()
    await asyncio.sleep(0.3)

    @asynccontextmanager
    async def publisher() -> AsyncIterator[object]:
        async with connect(own_url(stack, tenant, agent)) as client:

            async def publish(*payloads: bytes) -> None:
                topic = f"{agent_topic(tenant, agent)}/endpoints/x"
                await asyncio.gather(*[await client.publish(topic, payload) for payload in payloads])

            yield publish

    yield publisher


async def test_what_is_not_acknowledged_comes_again(stack: Stack, published: object, agent: AgentId) -> None:
    """The session keeps unacknowledged messages for the next connection, in order; acknowledged ones are gone."""
    user_filter = [f"i/+/a/{agent_topic(TenantId('0' * 12), agent).rpartition('/')[2]}/endpoints/#"]
    async with published() as publish:  # type: ignore[operator]
        async with connect(stack.mqtt_url, keep_session=True) as client:
            await client.subscribe(user_filter)
            await publish(b"1", b"2")
            assert await take(client, 2) == [b"1", b"2"]
            await publish(b"3", b"4")
            assert await take(client, 2, ack=False) == [b"3", b"4"]
            await publish(b"5")
            client.abort()
        await publish(b"6")
        async with connect(stack.mqtt_url, keep_session=True) as client:
            await client.subscribe(user_filter)
            assert await take(client, 4) == [b"3", b"4", b"5", b"6"]
        async with connect(stack.mqtt_url) as client:  # a clean start removes the session before the next test
            pass


async def test_a_paused_reader_stays_connected_and_gets_everything(
    stack: Stack, published: object, agent: AgentId
) -> None:
    """Back-pressure can last more than twice the keep-alive interval without a loss of messages."""
    user_filter = [f"i/+/a/{agent_topic(TenantId('0' * 12), agent).rpartition('/')[2]}/endpoints/#"]
    size = PAUSE_BYTES // 8
    payloads = [bytes([n]) * size for n in range(24)]
    async with connect(stack.mqtt_url, keepalive=1) as client, published() as publish:  # type: ignore[operator]
        await client.subscribe(user_filter)
        await publish(*payloads)
        await asyncio.sleep(4)
        assert client._protocol.paused
        assert not client.is_lost
        assert await take(client, 24) == payloads


async def test_a_reload_of_the_broker_costs_an_absent_intake_nothing(
    stack: Stack, published: object, agent: AgentId
) -> None:
    """Messages published after a restart, and after a reload, wait in the session."""
    user_filter = [f"i/+/a/{agent_topic(TenantId('0' * 12), agent).rpartition('/')[2]}/endpoints/#"]
    async with connect(stack.mqtt_url, keep_session=True) as client:
        await client.subscribe(user_filter)
    assert stack.servers.broker is not None
    stack.servers.broker.stop()  # as in a restart of all servers; the session is restored from disk
    stack.servers.broker.start()
    stack.servers.broker.await_ready()
    async with published() as publish:  # type: ignore[operator]
        await publish(b"before")
        stack.servers.broker.signal(signal.SIGHUP)
        await asyncio.sleep(0.3)
        await publish(b"after")
    async with connect(stack.mqtt_url, keep_session=True) as client:
        await client.subscribe(user_filter)
        assert await take(client, 2) == [b"before", b"after"]
    async with connect(stack.mqtt_url):  # a clean start removes the session before the next test
        pass


async def test_a_second_connection_supersedes_the_first(stack: Stack) -> None:
    """The client whose session was taken over stops; Mosquitto 2.0.11, unlike later versions, sends it no reason."""
    async with connect(stack.mqtt_url) as first, connect(stack.mqtt_url):
        with pytest.raises((Superseded, Unavailable)):
            await take(first, 1)


async def test_wrong_credentials_cannot_start_and_no_broker_is_waited_for(stack: Stack) -> None:
    """Wrong credentials must be fixed by the operator; an unreachable broker can come back."""
    port = stack.settings.mqtt_port
    with pytest.raises(CannotStart, match="refuses the credentials of 'nobody'"):
        async with connect(f"mqtt://nobody:x@127.0.0.1:{port}"):
            pass
    with pytest.raises(Unavailable, match="cannot reach the broker"):
        async with connect("mqtt://nobody:x@127.0.0.1:1"):
            pass


async def test_a_confined_broker_passes_the_probe_and_an_open_one_does_not() -> None:
    """The start is refused without the pattern lines of the access file, or with an extra rule."""
    with new_stack() as stack:
        assert stack.servers.broker is not None
        accounts = [(name, service_password(stack.key, name)) for name in mosquitto.PROBE_USERS]
        await access_probe.prove_confined(stack.mqtt_url, accounts, ours=True)
        rules = stack.servers.home.servers / "mosquitto" / "acl"
        good = rules.read_text()
        for change, message in (
            (good + "pattern write i/#\n", "publish to another agent's topics"),
            (good + "pattern read i/#\n", "read another agent's topics"),
            (good.replace("pattern write i/%u/#", "").replace("readwrite %u", "read %u"), "did not deliver"),
        ):
            stack.servers.home.write(rules, change)
            stack.servers.broker.signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
            with pytest.raises(CannotStart, match=message):
                await access_probe.prove_confined(stack.mqtt_url, accounts, ours=True)


async def test_a_lost_connection_is_noticed(stack: Stack) -> None:
    """When the broker stops, waiting for messages ends."""
    with new_stack() as own:
        async with connect(own.mqtt_url) as client:
            assert own.servers.broker is not None
            os.kill(own.servers.broker.pid, signal.SIGKILL)
            with pytest.raises(Unavailable, match="lost"):
                await take(client, 1)
