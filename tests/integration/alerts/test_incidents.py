"""Incidents: one for what begins together, told once, to whom it concerns and when it may be told."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from iotistica.domain.alerts.escalations import Step
from iotistica.domain.alerts.incidents import Cause, NewMember, Subject
from iotistica.domain.alerts.silences import Matches
from iotistica.domain.ids import AgentId
from iotistica.storage.agents import agents
from iotistica.storage.alerts import (
    escalations,
    incident_actions,
    incident_history,
    incidents,
    silences,
)
from iotistica.storage.history.audit import PLATFORM, Actor
from tests.integration.alerts.plant import KEY, Plant
from tests.integration.telemetry.test_readings import reading

HOT = {"kind": "threshold", "above": 70}
BERLIN = {"zone": "Europe/Berlin", "windows": [{"start": "02:00", "end": "04:00"}]}
SOMEBODY = Actor(kind="user", id="7", name="anna@example.com")
PRESENCE = """
INSERT INTO agent_presence (agent_uuid, tenant_id, status, since, data_at, heard_at)
SELECT agent_uuid, tenant_id, %(status)s, %(at)s, %(at)s, %(at)s FROM agents
WHERE tenant_id = %(tenant)s AND agent_uuid = ANY(%(agents)s)
ON CONFLICT (agent_uuid) DO UPDATE SET status = excluded.status, since = excluded.since
"""


@pytest.mark.parametrize(
    ("night", "hours"),
    [
        (datetime(2026, 3, 29, 0, 0, tzinfo=UTC), 1),  # clocks go forward at 01:00 UTC: 02:00 to 04:00 is one hour
        (datetime(2025, 10, 25, 23, 0, tzinfo=UTC), 3),  # clocks go back at 01:00 UTC: it is three hours
        (datetime(2026, 6, 10, 23, 0, tzinfo=UTC), 2),
    ],
)
async def test_maintenance_lasts_as_long_as_the_clock_on_the_wall_says(
    plant: Plant, night: datetime, hours: int
) -> None:
    """Still breached at its end: one message then. Opened and ended inside it: none."""
    plant.start = night
    await plant.accept_since(-86_400)
    await plant.add_rule(HOT, maintenance=BERLIN)
    await plant.add_target()
    begins = 3600  # 02:00 of the wall clock, an hour after the start in each of the nights
    for minute in range(0, hours * 60, 5):
        second = begins + minute * 60
        short = 71.0 if minute in (10, 15) else 20.0
        await plant.send([(second, short)], "short")
        await plant.send([(second, 71.0 if minute >= 30 else 20.0)], "long")
        await plant.round(second + 1)
        assert await plant.incidents() == []
    await plant.round(begins + hours * 3600 - 1)
    assert await plant.incidents() == []
    await plant.round(begins + hours * 3600)
    (incident,) = await plant.incidents()
    assert [m.metric_name for m in await plant.members(incident)] == ["long"]
    assert await plant.notices() == [("opened", "pending")]


async def test_a_rule_tells_only_in_its_active_hours(plant: Plant) -> None:
    """What fires in the night and lasts is told in the morning."""
    plant.start = datetime(2026, 1, 15, 6, 0, tzinfo=UTC)
    await plant.add_rule(HOT, active={"zone": "UTC", "windows": [{"start": "08:00", "end": "18:00"}]})
    await plant.send([(0, 71.0)])
    await plant.round(1)
    await plant.round(2 * 3600 - 1)
    assert await plant.incidents() == []
    plant.kill()
    await plant.round(2 * 3600)
    assert len(await plant.incidents()) == 1


async def fleet(plant: Plant, number: int) -> list[AgentId]:
    from uuid import uuid4

    found = [AgentId(uuid4()) for _ in range(number)]
    async with plant.database.transaction() as tx:
        for n, agent in enumerate(found):
            await agents.add(tx, plant.tenant, agent, f"agent {n:04}", key=KEY, by=PLATFORM)
    return found


async def set_status(plant: Plant, found: list[AgentId], status: str, second: float) -> None:
    async with plant.database.transaction() as tx:
        parameters = {"tenant": plant.tenant, "agents": found, "status": status, "at": plant.at(second)}
        await tx.execute(PRESENCE, parameters)


async def test_a_storm_is_one_incident(plant: Plant) -> None:
    """A thousand agents vanish within 30 s, and 999 come back: one message, and one agent is named."""
    found = await fleet(plant, 1000)
    await plant.add_rule({"kind": "agent"}, severity="critical")
    await plant.add_target()
    await plant.add_target(routes=[{"minSeverity": "critical"}])
    await set_status(plant, found, "online", -100)
    await plant.round(0)
    for second in range(1, 31):
        await set_status(plant, found[(second - 1) * 34 : second * 34], "offline", second)
        await plant.round(second)
    (incident,) = await plant.incidents()
    assert (incident.members, incident.active_members) == (1000, 1000)
    assert await plant.notices() == [("opened", "pending")] * 2
    await set_status(plant, found[:-1], "online", 100)
    await plant.round(101)
    (incident,) = await plant.incidents()
    assert (incident.status, incident.members, incident.active_members) == ("open", 1000, 1)
    assert [m.agent_name for m in await plant.members(incident, active=True)] == ["agent 0999"]
    await set_status(plant, found[:3], "offline", 110)  # members come and go
    await plant.round(111)
    await set_status(plant, found, "online", 120)
    await plant.round(121)
    assert [(i.status, i.members) for i in await plant.incidents()] == [("resolved", 1000)]
    assert await plant.notices() == [("opened", "pending")] * 2 + [("resolved", "pending")] * 2


async def test_many_series_that_fire_together_are_one_incident(plant: Plant) -> None:
    """Each series has its own, until so many fire within a minute that it is a storm."""
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)], "one")
    await plant.round(1)
    await plant.send([(100, 71.0)], "two")
    await plant.round(101)
    assert [i.members for i in await plant.incidents()] == [1, 1]
    rows = [reading(f"s{n}", plant.us(200), 71.0) for n in range(40)]
    await plant.send_all({plant.agent: rows})
    await plant.round(201)
    await plant.send_all({plant.agent: [reading(f"s{n}", plant.us(210), 71.0) for n in range(40, 60)]})
    await plant.round(211)
    assert [i.members for i in await plant.incidents()] == [1, 1, 60]


async def policy(plant: Plant, *steps: tuple[float, list[UUID]], next_id: UUID | None = None) -> UUID:
    async with plant.database.transaction() as tx:
        stored = await escalations.put(
            *(tx, plant.tenant),
            name=f"policy {len(steps)} {next_id}",
            steps=[Step(after_seconds=after, targets=tuple(targets)) for after, targets in steps],
            next_id=next_id,
            old=None,
            by=PLATFORM,
        )
    return stored.policy_id


async def act(plant: Plant, action: Any, second: float) -> None:
    (incident,) = await plant.incidents()
    async with plant.database.transaction() as tx:
        await action(tx, plant.tenant, incident.incident_id, note="mine", by=SOMEBODY, now=plant.at(second))


@pytest.mark.parametrize("restarts", [False, True])
async def test_what_is_acknowledged_is_not_escalated(plant: Plant, restarts: bool) -> None:
    """Acknowledged a second before the step after 5 minutes: nothing more is sent, also after a restart."""
    first, second = await plant.add_target(), await plant.add_target(routes=[])
    rule = await plant.add_rule(HOT, escalation=str(await policy(plant, (300, [second]), (60, [first]))))
    await plant.send([(0, 71.0)])
    await plant.round(0)
    assert await plant.notices() == [("opened", "pending")]
    await plant.round(298)
    await act(plant, incident_actions.acknowledge, 299)
    if restarts:
        plant.kill()
    for later in (300, 301, 400, 1000):
        await plant.send([(later, 71.0)])
        await plant.round(later)
    assert await plant.notices() == [("opened", "pending")]
    (incident,) = await plant.incidents()
    assert (incident.status, incident.rule_id) == ("acknowledged", rule.rule_id)
    assert incident.acknowledged_by is not None
    assert incident.acknowledged_by["name"] == "anna@example.com"


async def test_what_nobody_acknowledges_is_escalated_step_by_step(plant: Plant) -> None:
    """Each step once, the policy that continues after the last, and the end is told to all of them."""
    targets = [await plant.add_target(routes=[]) for _ in range(3)]
    last = await policy(plant, (60, [targets[2]]))
    await plant.add_rule(
        HOT,
        targets=[str(targets[0])],
        escalation=str(await policy(plant, (300, [targets[1]]), (30, [targets[1]]), next_id=last)),
    )
    await plant.send([(0, 71.0)])
    told = []
    for second in (0, 299, 300, 301, 329, 330, 389, 390, 391, 5000):
        await plant.send([(second, 71.0)])
        await plant.round(second)
        plant.kill()
        told.append(len(await plant.notices()))
    assert told == [1, 1, 2, 2, 2, 3, 3, 4, 4, 4]
    await plant.send([(5001, 20.0)])
    await plant.round(5001)
    kinds = [kind for kind, _ in await plant.notices()]
    assert kinds == ["opened", *["escalated"] * 3, *["resolved"] * 3]
    (incident,) = await plant.incidents()
    async with plant.database.transaction() as tx:
        history = await incident_history.of_incident(tx, plant.tenant, incident.incident_id)
    assert [entry.kind for entry in history] == ["opened", "told", *["escalated"] * 3, "resolved"]


async def silence(plant: Plant, matches: Matches, start: float, end: float) -> None:
    async with plant.database.transaction() as tx:
        await silences.add(
            *(tx, plant.tenant, matches),
            starts_at=plant.at(start),
            ends_at=plant.at(end),
            reason="the pump is replaced",
            by=SOMEBODY,
        )


async def test_a_silence_hides_nothing_and_tells_at_its_end_what_still_fires(plant: Plant) -> None:
    """Incidents are opened in it; one that ends in it is never told, one that lasts is told once."""
    from iotistica.domain.alerts.scopes import Scope

    await plant.add_rule(HOT)
    await plant.add_target()
    await silence(plant, Matches(scope=Scope(series="s*")), 0, 600)
    await plant.send([(10, 71.0)], "short")
    await plant.send([(10, 71.0)], "stays")
    await plant.round(11)
    await plant.send([(100, 20.0)], "short")
    await plant.round(101)
    await plant.round(599)
    assert sorted(i.status for i in await plant.incidents()) == ["open", "resolved"]
    assert await plant.notices() == []
    plant.kill()
    await plant.round(600)
    await plant.round(601)
    assert await plant.notices() == [("opened", "pending")]
    await plant.send([(610, 71.0)], "other")  # never silent
    await plant.round(611)
    assert await plant.notices() == [("opened", "pending")] * 2


async def test_an_incident_resolved_by_hand_stays_so_until_it_begins_anew(plant: Plant) -> None:
    """Its condition lasts, and nothing is told of it, also after a restart."""
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(0)
    await act(plant, incident_actions.resolve, 10)
    plant.kill()
    await plant.send([(20, 72.0)])
    await plant.round(20)
    assert [i.status for i in await plant.incidents()] == ["resolved"]
    await plant.send([(30, 20.0), (40, 72.0)])
    await plant.round(41)
    assert [i.status for i in await plant.incidents()] == ["resolved", "open"]


async def test_there_is_one_open_member_whoever_writes(plant: Plant) -> None:
    """Many writers at once open one incident with one member, held by a unique index."""
    cause = Cause(key="event f", rule_id=None, title="Anomaly", severity="warning", grouping="series")
    member = NewMember(subject=Subject(plant.agent, "m"), since=plant.at(0))

    async def write() -> None:
        async with plant.database.transaction() as tx:
            await incidents.open_members(tx, plant.tenant, cause, [member], plant.at(0))

    await asyncio.gather(*(write() for _ in range(8)))
    (incident,) = await plant.incidents()
    (found,) = await plant.members(incident)
    assert found.times == 8
    async with plant.database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT indisunique FROM pg_index WHERE indexrelid = 'incident_members_open'::regclass"
        )
        assert await cursor.fetchone() == (True,)


async def test_routes_choose_by_severity_label_and_time(plant: Plant) -> None:
    """A target is told of what one of its routes fits; outside of its hours when they begin, if it still lasts."""
    plant.start = datetime(2026, 1, 15, 6, 0, tzinfo=UTC)
    await plant.add_rule(HOT, labels={"team": "heat"})
    hours = {"zone": "UTC", "windows": [{"start": "08:00", "end": "18:00"}]}
    await plant.add_target(routes=[{"minSeverity": "critical"}])
    await plant.add_target(routes=[{"labels": "team=cold"}])
    await plant.add_target(routes=[{"labels": "team in (heat,cold)", "active": hours}])
    await plant.send([(0, 71.0)])
    await plant.round(0)
    from iotistica.storage.alerts import notice_search

    async with plant.database.transaction() as tx:
        (notice,) = await notice_search.page(
            tx, plant.tenant, status=None, incident=None, target=None, before=None, limit=10
        )
    assert notice.due_at == plant.start + timedelta(hours=2)
    await plant.send([(60, 20.0)])
    await plant.round(61)
    assert await plant.notices() == [("opened", "canceled")]
