"""Runs many simulated agents against a broker and reports what was acknowledged, and how soon."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit
from uuid import NAMESPACE_OID, uuid5

import msgspec

from iotistica.domain.accounts import mqtt_password
from iotistica.domain.ids import AgentId, TenantId, agent_topic, agent_user
from iotistica.errors import CannotStart, Conflict, Unavailable
from iotistica.mqtt.client import Client, connect
from iotistica.simulate import envelope
from iotistica.storage import agents, tenants
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep

RETRY: Final = 0.5  # seconds before an agent connects again
CONNECTING: Final = 50  # agents that connect at a time


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet does; `every` in seconds between an agent's messages, `skew` in seconds ahead."""

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


class Member(msgspec.Struct, frozen=True, kw_only=True):
    tenant: TenantId
    agent: AgentId
    password: str


class Report(msgspec.Struct, kw_only=True):
    """Counts, and latencies from publish to the broker's acknowledgement in s."""

    published: int = 0
    acknowledged: int = 0
    readings: int = 0
    lost_connections: int = 0
    latencies: list[float] = []
    seconds: float = 0.0

    def text(self) -> str:
        """One line a fact."""
        ranked = sorted(self.latencies) or [0.0]
        at = [ranked[min(int(len(ranked) * share), len(ranked) - 1)] * 1000 for share in (0.5, 0.99, 1)]
        rate = self.readings / self.seconds if self.seconds else 0.0
        return (
            f"published     {self.published} messages, {self.readings} readings in {self.seconds:.1f} s"
            f" ({rate:.0f} readings/s)\n"
            f"acknowledged  {self.acknowledged} messages\n"
            f"latency       p50 {at[0]:.1f} ms, p99 {at[1]:.1f} ms, max {at[2]:.1f} ms\n"
            f"connections   {self.lost_connections} lost"
        )


async def enlist(database: Database, key: bytes, tenant: str, count: int) -> list[Member]:
    """Make the tenant and its agents where they are missing; their ids are the same each time."""
    async with database.transaction() as tx:
        found = await tenants.find(tx, tenant) or await tenants.add(tx, tenant)
    owner = found.tenant_id
    members = []
    for number in range(count):
        agent = AgentId(uuid5(NAMESPACE_OID, f"iotistica simulation {owner} {number}"))
        members.append(Member(tenant=owner, agent=agent, password=mqtt_password(key, agent, 1)))
    async with database.transaction() as tx:
        known = await agents.owners(tx, [member.agent for member in members])
        for number, member in enumerate(members):
            if member.agent not in known:
                with suppress(Conflict):
                    await agents.add(tx, owner, member.agent, f"simulated-{number + 1:03}", key=key)
    return members


async def run(plan: Plan, members: Sequence[Member], url: str, stop: asyncio.Event) -> Report:
    """Publish until every agent has sent its messages, or until `stop`."""
    report = Report()
    connecting = asyncio.Semaphore(CONNECTING)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, member in enumerate(members):
            group.create_task(_live(plan, member, number, url, stop, report, connecting), name=f"agent {number}")
    report.seconds = time.monotonic() - began
    return report


async def _live(
    plan: Plan,
    member: Member,
    number: int,
    url: str,
    stop: asyncio.Event,
    report: Report,
    connecting: asyncio.Semaphore,
) -> None:
    """One agent: what was not acknowledged when its connection is lost, it sends again."""
    broker = urlsplit(url)
    address = broker.netloc.rpartition("@")[2]
    user = quote(agent_user(member.tenant, member.agent), safe="")
    own_url = f"{broker.scheme}://{user}:{quote(member.password, safe='')}@{address}"
    source = envelope.Agent(
        member.agent, series=plan.series, readings=plan.readings, full=plan.full, seed=plan.seed
    )
    chance = random.Random(f"{member.agent} faults {plan.seed}")  # noqa: S311 a simulation
    topic = f"{agent_topic(member.tenant, member.agent)}/endpoints/modbus"
    left = plan.messages or None
    unsent: list[bytes] = []
    await sleep(plan.every * number / max(plan.agents, 1), stop)
    while not stop.is_set() and (left is None or left > 0 or unsent):
        try:
            await connecting.acquire()
            try:
                context = connect(own_url)
                client = await context.__aenter__()
            finally:
                connecting.release()
            try:
                left = await _publish(plan, client, source, topic, chance, unsent, left, stop, report)
            finally:
                await context.__aexit__(None, None, None)
        except CannotStart:
            await sleep(RETRY, stop)  # the broker may not have read our account yet
        except Unavailable:
            report.lost_connections += 1
            await sleep(RETRY, stop)


async def _publish(
    plan: Plan,
    client: Client,
    source: envelope.Agent,
    topic: str,
    chance: random.Random,
    unsent: list[bytes],
    left: int | None,
    stop: asyncio.Event,
    report: Report,
) -> int | None:
    due = time.monotonic()
    while not stop.is_set() and (unsent or left is None or left > 0):
        if not unsent:
            now = datetime.now(UTC) + timedelta(seconds=plan.skew)
            encoding = chance.choice(envelope.ENCODINGS) if plan.encoding == "mix" else plan.encoding
            unsent.append(envelope.encode(source.message(now, bad=plan.bad), encoding))
            report.readings += plan.readings
            if chance.random() < plan.duplicates:
                unsent.append(unsent[0])
            left = None if left is None else left - 1
        while unsent:
            began = time.monotonic()
            acked = await client.publish(topic, unsent[0])
            report.published += 1
            await acked
            report.acknowledged += 1
            report.latencies.append(time.monotonic() - began)
            unsent.pop(0)
        if len(report.latencies) > 1_000_000:
            del report.latencies[:500_000]
        due += plan.every
        await sleep(max(due - time.monotonic(), 0), stop)
    return left
