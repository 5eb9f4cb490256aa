"""Runs many simulated agents, which publish to a broker and call the API, and reports what they did."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit
from uuid import NAMESPACE_OID, uuid5

import msgspec

from iotistica.domain.access import credentials
from iotistica.domain.access.credentials import NewSecret
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import AgentId, TenantId, agent_topic, agent_user
from iotistica.domain.key_derivation import derive
from iotistica.errors import CannotStart, Conflict, Unavailable
from iotistica.mqtt.client import Client, connect
from iotistica.simulate import duties, envelope
from iotistica.simulate.duties import AgentDuties, DutyCounts
from iotistica.storage.access import tenants
from iotistica.storage.agents import agent_keys, agents
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep

RETRY: Final = 0.5  # seconds before an agent connects again
LATENCIES: Final = 1_000_000  # the largest number of latencies in memory
CONNECTING: Final = 50  # agents that connect at the same time
TELL_SECONDS: Final = 10.0  # between two lines that say what the agents have done


class SimulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a simulation.

    `messages` is per agent, 0 for no limit; `every` is the time in seconds between an agent's messages; `skew` is
    how far the agents' clocks are ahead, in seconds; `duplicates` and `bad` are shares from 0 to 1; `hurry`
    divides the waits between two polls, reports and so on.
    """

    agents: int = 20
    messages: int = 0
    every: float = 1.0
    readings: int = 10
    series: int = 10
    encoding: str = "json"
    full: bool = False
    duplicates: float = 0.0
    bad: float = 0.0
    skew: float = 0.0
    seed: int = 1
    hurry: float = 1.0


class SimulatedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of the simulation, its broker password and its API key."""

    tenant: TenantId
    agent: AgentId
    password: str
    api_key: str


class SimulationReport(msgspec.Struct, kw_only=True):
    """Counts of messages, and latencies from a publish to the broker's acknowledgement in s."""

    published: int = 0
    acknowledged: int = 0
    readings: int = 0
    lost_connections: int = 0
    latencies: list[float] = []
    seconds: float = 0.0
    duties: DutyCounts = msgspec.field(default_factory=DutyCounts)

    def progress(self) -> str:
        """Return what was done so far as one line."""
        return f"{self.acknowledged} messages acknowledged, {self.readings} readings, {self.duties.text()}"

    def acknowledge(self, seconds: float) -> None:
        """Count an acknowledgement and keep its latency; when the list is full, its older half is dropped."""
        self.acknowledged += 1
        self.latencies.append(seconds)
        if len(self.latencies) > LATENCIES:
            del self.latencies[: LATENCIES // 2]

    def text(self) -> str:
        """Return the report as text, one line for each figure."""
        ranked = sorted(self.latencies) or [0.0]
        at = [ranked[min(int(len(ranked) * share), len(ranked) - 1)] * 1000 for share in (0.5, 0.99, 1)]
        rate = self.readings / self.seconds if self.seconds else 0.0
        return (
            f"published     {self.published} messages, {self.readings} readings in {self.seconds:.1f} s"
            f" ({rate:.0f} readings/s)\n"
            f"acknowledged  {self.acknowledged} messages\n"
            f"latency       p50 {at[0]:.1f} ms, p99 {at[1]:.1f} ms, max {at[2]:.1f} ms\n"
            f"connections   {self.lost_connections} lost\n"
            f"over HTTP     {self.duties.text()}"
        )


async def create_agents(database: Database, key: bytes, tenant: str, count: int) -> list[SimulatedAgent]:
    """Create the tenant and `count` agents where they are missing; an agent's id is the same in each run."""
    async with database.transaction() as tx:
        row = await tenants.find(tx, tenant) or await tenants.add(tx, tenant, by=PLATFORM)
    owner = row.tenant_id
    members = []
    for number in range(count):
        agent = AgentId(uuid5(NAMESPACE_OID, f"iotistica simulation {owner} {number}"))
        members.append(
            SimulatedAgent(
                tenant=owner,
                agent=agent,
                password=mqtt_password(key, owner, agent, 1),
                api_key=_api_key(key, agent).text,
            )
        )
    async with database.transaction() as tx:
        known = await agents.tenants_of(tx, [member.agent for member in members])
        for number, member in enumerate(members):
            if member.agent not in known:
                with contextlib.suppress(Conflict):
                    await agents.add(tx, owner, member.agent, f"simulated-{number + 1:03}", key=key, by=PLATFORM)
    return members


async def give_keys(database: Database, key: bytes, members: Sequence[SimulatedAgent]) -> None:
    """Store the API keys of agents that do not have theirs yet; those that were revoked stay locked out."""
    async with database.transaction() as tx:
        for member in members:
            digest = _api_key(key, member.agent).digest
            if not await agent_keys.has_key(tx, member.tenant, member.agent, digest):
                await agent_keys.add(tx, member.tenant, member.agent, digest)


def _api_key(key: bytes, agent: AgentId) -> NewSecret:
    return credentials.new(key, credentials.AGENT, derive(key, f"simulated agent {agent}")[: credentials.ENTROPY])


async def run(
    plan: SimulationPlan,
    members: Sequence[SimulatedAgent],
    url: str,
    stop: asyncio.Event,
    *,
    api_url: str = "",
    tell: Callable[[str], None] | None = None,
) -> SimulationReport:
    """Publish until every agent has sent its messages, or until `stop` is set.

    With `api_url`, the agents also poll, report, send logs and run jobs. `tell` gets a line every `TELL_SECONDS`.
    """
    report = SimulationReport()
    connecting = asyncio.Semaphore(CONNECTING)
    began, done = time.monotonic(), asyncio.Event()
    stopping = asyncio.create_task(_set_after(stop, done), name="simulation stop")
    async with duties.client(api_url) as api, asyncio.TaskGroup() as beside:
        if tell:
            beside.create_task(_tell(report, tell, done), name="simulation progress")
        if api_url:
            for member in members:
                agent_duties = AgentDuties(api, member.agent, member.api_key, report.duties, hurry=plan.hurry)
                beside.create_task(agent_duties.perform(done), name=f"duties {member.agent}")
        async with asyncio.TaskGroup() as group:
            for number, member in enumerate(members):
                agent = _Agent(plan, member, url, report)
                delay = plan.every * number / max(plan.agents, 1)
                group.create_task(agent.live(delay, connecting, stop), name=f"agent {number}")
        done.set()
    stopping.cancel()
    report.seconds = time.monotonic() - began
    return report


async def _set_after(stop: asyncio.Event, done: asyncio.Event) -> None:
    await stop.wait()
    done.set()


async def _tell(report: SimulationReport, tell: Callable[[str], None], stop: asyncio.Event) -> None:
    while not stop.is_set():
        await sleep(TELL_SECONDS, stop)
        tell(report.progress())


class _Agent:
    """One agent; after a lost connection it sends the messages again that were not acknowledged."""

    def __init__(self, plan: SimulationPlan, member: SimulatedAgent, url: str, report: SimulationReport) -> None:
        broker = urlsplit(url)
        user = quote(agent_user(member.tenant, member.agent), safe="")
        address = broker.netloc.rpartition("@")[2]
        self._url = f"{broker.scheme}://{user}:{quote(member.password, safe='')}@{address}"
        self._topic = f"{agent_topic(member.tenant, member.agent)}/endpoints/modbus"
        self._source = envelope.AgentMessages(
            member.agent, series=plan.series, readings=plan.readings, full=plan.full, seed=plan.seed
        )
        self._chance = random.Random(f"{member.agent} faults {plan.seed}")  # noqa: S311 a simulation
        self._plan = plan
        self._report = report
        self._made = 0
        self._unsent: list[bytes] = []

    async def live(self, delay: float, connecting: asyncio.Semaphore, stop: asyncio.Event) -> None:
        """Publish all messages, with a new connection each time one is lost."""
        await sleep(delay, stop)
        while not stop.is_set() and not self._is_done():
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with connecting:
                        client = await stack.enter_async_context(connect(self._url))
                    await self._publish(client, stop)
            except CannotStart:
                await sleep(RETRY, stop)  # the broker may not have read the agent's new account yet
            except Unavailable:
                self._report.lost_connections += 1
                await sleep(RETRY, stop)

    def _is_done(self) -> bool:
        return not self._unsent and 0 < self._plan.messages <= self._made

    async def _publish(self, client: Client, stop: asyncio.Event) -> None:
        due = time.monotonic()
        while not stop.is_set() and not self._is_done():
            if not self._unsent:
                self._make()
            while self._unsent:
                began = time.monotonic()
                acked = await client.publish(self._topic, self._unsent[0])
                self._report.published += 1
                await acked
                self._report.acknowledge(time.monotonic() - began)
                self._unsent.pop(0)
            due += self._plan.every
            await sleep(max(due - time.monotonic(), 0), stop)

    def _make(self) -> None:
        plan = self._plan
        now = datetime.now(UTC) + timedelta(seconds=plan.skew)
        encoding = self._chance.choice(envelope.ENCODINGS) if plan.encoding == "mix" else plan.encoding
        self._unsent.append(envelope.encode(self._source.message(now, bad=plan.bad), encoding))
        if self._chance.random() < plan.duplicates:
            self._unsent.append(self._unsent[0])
        self._made += 1
        self._report.readings += plan.readings
