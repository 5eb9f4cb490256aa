"""Rules fire and end by measured time, whatever happens to the process that applies them."""

from typing import Any

import msgspec
import pytest

from iotistica.domain.alerts.conditions import BadQuality, Threshold
from iotistica.domain.alerts.detector import observe
from iotistica.domain.alerts.detector_state import DetectorState
from iotistica.domain.alerts.scopes import Scope
from iotistica.storage.alerts import rules
from iotistica.storage.alerts.rules import NewRule
from iotistica.storage.history.audit import PLATFORM
from tests.integration.alerts.plant import Plant

HOT = {"kind": "threshold", "above": 70}
HYSTERESIS = {"kind": "threshold", "above": 70, "clearBelow": 65}


async def test_a_condition_fires_once_it_has_held_long_enough(plant: Plant) -> None:
    """71 for 50 s, then 69, then 71 again for 60 s: it fires at the end of the second time, once."""
    await plant.add_rule(HOT, forSeconds=60)
    readings = [*((t, 71.0) for t in range(0, 51, 5)), (55, 69.0), *((t, 71.0) for t in range(56, 117, 5))]
    for second, value in readings:
        await plant.send([(second, value)])
        await plant.round(second)
        assert len(await plant.incidents()) == (second >= 116)
    (incident,) = await plant.incidents()
    (member,) = await plant.members(incident)
    assert member.since == plant.at(56)
    assert member.details["at"] == plant.at(116).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert member.details["bound"] == 70
    assert [value for _, value in member.details["values"]] == [value for _, value in readings]


async def test_a_value_between_its_bounds_neither_fires_nor_resolves(plant: Plant) -> None:
    """69.9 and 70.1 in turn for an hour: one incident, which ends at 65 and not before."""
    await plant.add_rule(HYSTERESIS)
    await plant.add_target()
    await plant.round(0)
    for minute in range(60):
        await plant.send([(minute * 60 + s, 69.9 if s % 20 else 70.1) for s in range(0, 60, 10)])
        await plant.round(minute * 60 + 59)
    (incident,) = await plant.incidents()
    assert incident.status == "open"
    assert await plant.notices() == [("opened", "pending")]
    await plant.send([(3600, 65.0)])
    await plant.round(3600)
    assert [i.status for i in await plant.incidents()] == ["resolved"]


async def test_a_kill_does_not_begin_the_time_anew(plant: Plant) -> None:
    """Killed 40 s into 60 s and back 10 s later: it fires at 60 s, once."""
    await plant.add_rule(HOT, forSeconds=60)
    await plant.add_target()
    for second in range(0, 41, 5):
        await plant.send([(second, 71.0)])
        await plant.round(second)
    plant.kill()
    await plant.send([(45, 71.0), (50, 71.0)])
    for second in (50, 55, 60, 65):
        await plant.send([(second, 71.0)] if second > 50 else [])
        await plant.round(second)
        assert len(await plant.incidents()) == (second >= 60)
    assert await plant.notices() == [("opened", "pending")]


async def test_what_ends_while_nobody_looks_is_resolved_once(plant: Plant) -> None:
    """The condition ends while no process applies the rules: one resolve after the start."""
    await plant.add_rule(HOT)
    await plant.add_target()
    await plant.send([(0, 71.0)])
    await plant.round(0)
    plant.kill()
    await plant.send([(30, 60.0), (60, 60.0)])
    await plant.round(61)
    plant.kill()
    await plant.round(62)
    assert [i.status for i in await plant.incidents()] == ["resolved"]
    assert await plant.notices() == [("opened", "pending"), ("resolved", "pending")]


async def test_only_a_current_reading_ends_an_absence(plant: Plant) -> None:
    """Silent for 5 minutes: it opens; a backfill of old data leaves it open; a current reading resolves it."""
    await plant.add_rule({"kind": "absence"}, forSeconds=300)
    await plant.send([(0, 1.0)])
    await plant.round(1)
    await plant.round(300)
    assert await plant.incidents() == []
    await plant.round(301)
    (incident,) = await plant.incidents()
    assert incident.status == "open"
    await plant.send([(-t, 1.0) for t in range(1, 1000)])  # before the last reading
    await plant.send([(t, 1.0) for t in range(1, 60)])  # after it, and still long ago
    await plant.round(420)
    assert [i.status for i in await plant.incidents()] == ["open"]
    await plant.send([(421, 1.0)])
    await plant.round(422)
    assert [i.status for i in await plant.incidents()] == ["resolved"]


async def test_a_platform_that_takes_nothing_in_calls_nobody_silent(plant: Plant) -> None:
    """Neither the time in which it accepted no messages counts, nor that of a tenant whose messages wait."""
    await plant.add_rule({"kind": "absence"}, forSeconds=300)
    await plant.send([(0, 1.0)])
    await plant.round(1)
    await plant.accept_since(200)
    await plant.round(400)
    assert await plant.incidents() == []
    await plant.round(501, lagging=[plant.tenant])
    assert await plant.incidents() == []
    await plant.round(502)
    assert len(await plant.incidents()) == 1


async def test_a_replayed_day_of_breaches_changes_nothing(plant: Plant) -> None:
    """No incident, no message, and what is remembered stays the same byte for byte."""
    for condition in (
        HOT,
        {"kind": "rate", "above": 100, "windowSeconds": 60},
        {"kind": "stuck", "tolerance": 0.5},
        {"kind": "quality"},
        {"kind": "anomaly"},
    ):
        fields: dict[str, Any] = {"forSeconds": 60} if condition["kind"] == "stuck" else {}
        await plant.add_rule(condition, **fields)
    await plant.add_target()
    for second in range(0, 60, 2):
        await plant.send([(second, 20.0 + second / 10)])
    await plant.round(60)
    assert plant.rounds is not None
    await plant.rounds.save(plant.at(60))
    before = await plant.states()
    await plant.send([(-s, 99.0 if s % 3 else -99.0) for s in range(30, 86_400, 30)])
    await plant.send([(-s - 0.5, None) for s in range(30, 3600, 30)], quality="bad")
    for second in (61, 62, 63):
        await plant.round(second)
    await plant.rounds.save(plant.at(64))
    assert await plant.states() == before
    assert (await plant.incidents(), await plant.notices()) == ([], [])


async def test_a_new_series_does_not_fire_for_its_past(plant: Plant) -> None:
    """The first readings of a series are a backfill of a day: only what is current can fire."""
    await plant.add_rule(HOT)
    await plant.round(0)
    await plant.send([(-s, 99.0) for s in range(400, 86_400, 60)], "new")
    await plant.round(1)
    assert await plant.incidents() == []
    await plant.send([(-10, 20.0)], "new")
    await plant.round(2)
    assert await plant.incidents() == []


async def test_values_that_cannot_be_believed_neither_fire_nor_resolve(plant: Plant) -> None:
    """Bad quality and null for ten minutes, then the same breach: the same incident, no second message."""
    await plant.add_rule(HOT)
    await plant.add_target()
    await plant.send([(0, 71.0)])
    await plant.round(0)
    await plant.send([(t, 20.0) for t in range(10, 300, 10)], quality="bad")
    await plant.send([(t, None) for t in range(300, 600, 10)])
    await plant.send([(t, 20.0) for t in range(600, 660, 10)], quality="stale")
    await plant.round(660)
    await plant.send([(661, 71.0)])
    await plant.round(661)
    (incident,) = await plant.incidents()
    assert (incident.status, incident.members) == ("open", 1)
    assert await plant.notices() == [("opened", "pending")]


async def test_a_reading_from_the_future_waits_until_its_time_has_come(plant: Plant) -> None:
    """Also across a restart; until then others are judged as if it were not there."""
    await plant.add_rule(HOT)
    await plant.send([(0, 20.0), (100, 71.0)], quality="uncertain")
    await plant.round(1)
    await plant.send([(50, 60.0)])
    await plant.round(60)
    assert await plant.incidents() == []
    plant.kill()
    await plant.round(99)
    assert await plant.incidents() == []
    await plant.round(101)
    assert len(await plant.incidents()) == 1


async def test_other_bounds_count_where_a_limit_fits(plant: Plant) -> None:
    """One rule, and other bounds by agent and by device."""
    other = await plant.add_agent()
    await plant.add_rule(
        HOT,
        limits=[{"agent": str(other), "above": 80}, {"device": "old*", "above": 60}],
        scope={"series": "*t"},
    )
    await plant.send([(0, 75.0)], "t")
    await plant.send([(0, 75.0)], "t", agent=other)
    await plant.send([(0, 65.0)], "old-1.t", device="old-1")
    await plant.send([(0, 65.0)], "new-1.t", device="new-1")
    await plant.round(1)
    found = [await plant.members(incident) for incident in await plant.incidents()]
    assert {(m.agent_uuid, m.metric_name) for members in found for m in members} == {
        (plant.agent, "t"),
        (plant.agent, "old-1.t"),
    }


async def test_two_series_of_an_agent_are_compared(plant: Plant) -> None:
    """The supply is more than 20 above the return of the same device, for a minute."""
    await plant.add_rule(
        {"kind": "comparison", "other": "return", "above": 20}, scope={"series": "supply"}, forSeconds=60
    )
    for second in range(0, 100, 10):
        await plant.send([(second, 70.0)], "h.supply", device="h")
        await plant.send([(second + 2, 45.0 if second >= 20 else 55.0)], "h.return", device="h")
        await plant.round(second + 3)
    (incident,) = await plant.incidents()
    (member,) = await plant.members(incident)
    assert (member.metric_name, member.value, member.since) == ("h.supply", 25.0, plant.at(22))
    await plant.send([(100, 70.0)], "h.supply", device="h")
    await plant.send([(100, 60.0)], "h.return", device="h")
    await plant.round(101)
    assert [i.status for i in await plant.incidents()] == ["resolved"]


async def test_a_rate_a_stuck_value_and_bad_quality(plant: Plant) -> None:
    """Each kind fires for what it is about and for nothing else."""
    await plant.add_rule(
        {"kind": "rate", "above": 10, "per": "minute", "windowSeconds": 60}, scope={"series": "rising"}
    )
    await plant.add_rule({"kind": "stuck"}, forSeconds=60, scope={"series": "stuck"})
    await plant.add_rule({"kind": "quality"}, forSeconds=30, scope={"series": "bad"})
    for metric in ("rising", "stuck", "bad"):
        await plant.send([(t, float(t % 7)) for t in range(0, 60, 10)], metric)
    await plant.round(59)
    assert await plant.incidents() == []
    await plant.send([(t, t / 2) for t in range(60, 180, 10)], "rising")
    await plant.send([(t, 5.0) for t in range(60, 180, 10)], "stuck")
    await plant.send([(t, 5.0 + t) for t in range(60, 180, 10)], "bad", quality="bad")
    await plant.round(180)
    found = [(await plant.members(incident))[0] for incident in await plant.incidents()]
    assert {member.metric_name for member in found} == {"rising", "stuck", "bad"}
    await plant.send([(t, 60.0) for t in range(180, 300, 10)], "rising")
    await plant.send([(190, 6.0)], "stuck")
    await plant.send([(190, 6.0)], "bad")
    await plant.round(300)
    assert {i.status for i in await plant.incidents()} == {"resolved"}


@pytest.mark.parametrize("how", ["delete", "disable", "scope", "kind", "retire"])
async def test_what_is_no_longer_watched_is_resolved(plant: Plant, how: str) -> None:
    """A rule that is deleted, disabled or about something else, and an agent that is retired, leave nothing open."""
    rule = await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(1)
    async with plant.database.transaction() as tx:
        if how == "delete":
            await rules.delete(tx, plant.tenant, rule.rule_id, by=PLATFORM)
        elif how == "retire":
            await tx.execute(
                "UPDATE agents SET state = 'retired' WHERE agent_uuid = %(agent)s", {"agent": plant.agent}
            )
        else:
            changes: dict[str, Any] = {
                "disable": {},
                "scope": {"scope": Scope(series="other")},
                "kind": {"condition": BadQuality()},
            }
            wanted = NewRule(
                name=rule.name,
                definition=msgspec.structs.replace(rule.definition, **changes[how]),
                severity=rule.severity,
                is_enabled=how != "disable",
            )
            await rules.put(tx, plant.tenant, wanted, old=rule, most=None, by=PLATFORM)
    plant.kill()
    await plant.round(2)
    assert [i.status for i in await plant.incidents()] == ["resolved"]
    plant.kill()
    await plant.round(3)
    assert len(await plant.incidents()) == 1


async def test_a_rule_that_is_enabled_again_begins_anew(plant: Plant) -> None:
    """What it remembered from before it was disabled is forgotten: it fires again for what lasts."""
    rule = await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(1)
    for enabled, second in ((False, 10), (True, 20)):
        wanted = NewRule(name=rule.name, definition=rule.definition, severity="warning", is_enabled=enabled)
        async with plant.database.transaction() as tx:
            rule = await rules.put(tx, plant.tenant, wanted, old=rule, most=None, by=PLATFORM)
        plant.kill()
        await plant.send([(second, 71.0)])
        await plant.round(second)
    assert [i.status for i in await plant.incidents()] == ["resolved", "open"]


async def test_changed_bounds_keep_an_incident_until_they_end_it(plant: Plant) -> None:
    """An open incident is not opened again by an edit, and ends by the new bound."""
    rule = await plant.add_rule(HOT)
    await plant.add_target()
    await plant.send([(0, 71.0)])
    await plant.round(1)
    wanted = NewRule(
        name=rule.name,
        definition=msgspec.structs.replace(rule.definition, condition=Threshold(above=75)),
        severity="warning",
        is_enabled=True,
    )
    async with plant.database.transaction() as tx:
        await rules.put(tx, plant.tenant, wanted, old=rule, most=None, by=PLATFORM)
    plant.kill()
    await plant.round(2)
    assert [i.status for i in await plant.incidents()] == ["open"]
    await plant.send([(3, 72.0)])
    await plant.round(4)
    assert await plant.notices() == [("opened", "pending"), ("resolved", "pending")]


async def test_nothing_is_opened_again_until_the_cooldown_is_over(plant: Plant) -> None:
    """What fires again meanwhile is told when it is over, if it still does."""
    await plant.add_rule(HOT, cooldownSeconds=300)
    await plant.send([(0, 71.0), (1, 60.0)])
    await plant.round(2)
    await plant.send([(10, 71.0), (20, 60.0), (30, 71.0)])
    await plant.round(31)
    assert [i.status for i in await plant.incidents()] == ["resolved"]
    plant.kill()
    await plant.round(301)
    assert len(await plant.incidents()) == 1
    await plant.round(303)
    assert [i.status for i in await plant.incidents()] == ["resolved", "open"]


async def test_a_learned_anomaly_opens_once_and_ends_when_values_are_as_expected(plant: Plant) -> None:
    """The detector learns from what is stored; its state survives a kill, and a replay leaves it as it was."""
    import math
    import random

    chance = random.Random(1)
    days, step = 6, 300

    def usual(second: float) -> float:
        return 20 + 5 * math.sin(second / 86_400 * 2 * math.pi) + chance.gauss(0, 0.3)

    await plant.send([(second, usual(second)) for second in range(-days * 86_400, 0, step)])
    await plant.add_rule({"kind": "anomaly", "calmSeconds": 600})
    for second in range(0, 3600, step):
        await plant.send([(second, usual(second))])
        await plant.round(second)
    assert await plant.incidents() == []
    before = await plant.detectors(3600)
    await plant.send([(second + 7, 90.0) for second in range(-86_400, 0, step)])
    plant.kill()
    await plant.round(3600)
    assert await plant.detectors(3600) == before
    await plant.send([(3600, 60.0)])
    await plant.round(3600)
    (incident,) = await plant.incidents()
    (member,) = await plant.members(incident)
    assert member.value == 60
    assert member.details["score"] > 0.9
    assert 10 < member.details["expected"]["value"] < 30
    async with plant.database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT value, anomaly_score, anomaly_threshold FROM readings"
            " WHERE agent_uuid = %(agent)s AND anomaly_score IS NOT NULL",
            {"agent": plant.agent},
        )
        assert await cursor.fetchall() == [(60.0, member.details["score"], 0.93)]
    for second in range(3600 + step, 3600 + 6 * step, step):
        await plant.send([(second, usual(second))])
        await plant.round(second)
    assert [i.status for i in await plant.incidents()] == ["resolved"]


async def test_a_detector_that_was_killed_learns_what_it_missed(plant: Plant) -> None:
    """What was judged since the last save is learned again: the same bytes as without the kill."""
    await plant.add_rule({"kind": "anomaly"})
    values = [(float(second), 20.0 + second % 7) for second in range(0, 3000, 60)]
    expected = DetectorState()
    for second, value in values:
        observe(expected, plant.us(second) / 1e6, value)
        await plant.send([(second, value)])
        await plant.round(second)
        if second in (600, 1800):
            await plant.detectors(second)  # a save
        if second in (1200, 2400):
            plant.kill()
    assert await plant.detectors(3000) == {"m": expected.to_bytes()}
