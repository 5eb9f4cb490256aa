"""A rule that begins to watch series which others watch already misses nothing, and nothing is judged twice."""

import gc
import weakref
from typing import Any

import pytest

from iotistica.alerting import catching_up
from iotistica.storage.alerts import watched_readings
from tests.integration.alerts.plant import Plant

HOT = {"kind": "threshold", "above": 70}
NEVER = {"kind": "threshold", "above": 1000}


async def begin_anew(plant: Plant, second: float) -> None:
    """Load the rules again, as happens within seconds after one was written, or after a restart."""
    assert plant.rounds is not None
    await plant.rounds.save(plant.at(second))
    await plant.load(second)
    await plant.round(second)


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        (HOT, {}),
        (HOT, {"forSeconds": 20}),
        ({"kind": "rate", "above": 10, "per": "minute", "windowSeconds": 10}, {}),
        ({"kind": "stuck"}, {"forSeconds": 20}),
        ({"kind": "quality", "qualities": ["uncertain"]}, {}),
        ({"kind": "comparison", "other": "other", "above": 50}, {}),
    ],
)
async def test_a_new_rule_judges_what_others_have_judged(
    plant: Plant, condition: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Its readings came after it was written and before it was applied: others that fired already fire once."""
    old = await plant.add_rule({"kind": "threshold", "above": 65}, scope={"series": "m"})
    await plant.add_rule(NEVER)
    await plant.send([(0, 20.0)], "other")
    await plant.send([(-20, 1.0)])
    await plant.round(1)
    new = await plant.add_rule(condition, scope={"series": "m"}, **fields)
    await plant.send([(t, 71.0) for t in (2, 12, 22)], quality="uncertain")
    await plant.round(23)
    assert [incident.rule_id for incident in await plant.incidents()] == [old.rule_id]
    await begin_anew(plant, 24)
    await plant.round(25)
    await begin_anew(plant, 26)
    assert [incident.rule_id for incident in await plant.incidents()] == [old.rule_id, new.rule_id]


async def test_what_has_ended_is_not_opened_again_by_a_restart(plant: Plant) -> None:
    """A rule that remembers nothing, since all is over, is not new."""
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0), (10, 60.0)])
    await plant.round(11)
    assert [incident.status for incident in await plant.incidents()] == ["resolved"]
    for second in (12, 13):
        await begin_anew(plant, second)
    assert len(await plant.incidents()) == 1


async def test_old_readings_are_history_for_a_new_rule(plant: Plant) -> None:
    """A breach that is older than the rule lets readings be opens nothing."""
    await plant.add_rule(NEVER)
    await plant.send([(0, 71.0), (50, 60.0)])
    await plant.round(51)
    await plant.add_rule(HOT, maxAgeSeconds=10)
    await begin_anew(plant, 52)
    assert await plant.incidents() == []


async def test_more_readings_than_a_round_takes_are_judged_in_several(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new rule catches up round by round, and old rules judge nothing a second time."""
    monkeypatch.setattr(watched_readings, "READINGS_LIMIT", 7)
    old = await plant.add_rule({"kind": "threshold", "above": 65}, scope={"series": "m"})
    await plant.send([(0, 66.0), *((t, 60.0) for t in range(1, 30)), (30, 71.0), (31, 60.0)])
    for second in range(32, 40):
        await plant.round(second)
    new = await plant.add_rule(HOT)
    await begin_anew(plant, 40)
    for second in range(41, 50):
        await plant.round(second)
    rules = [incident.rule_id for incident in await plant.incidents()]
    assert rules == [old.rule_id, old.rule_id, new.rule_id]


async def test_a_new_rule_catches_up_at_once_however_much_there_is(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It judges the newest readings alone, so that nothing is half judged when rules are loaded again."""
    monkeypatch.setattr(catching_up, "MOST_READINGS", 7)
    await plant.add_rule(NEVER)
    await plant.send([(t, 60.0 if t == 20 else 71.0) for t in range(30)])
    await plant.round(30)
    await plant.add_rule(HOT, forSeconds=15)
    for second in (30, 31, 32):
        await plant.reload(second)
        await plant.round(second)
    assert await plant.incidents() == []
    await plant.send([(t, 71.0) for t in (37, 38)])
    await plant.round(37)
    assert await plant.incidents() == []
    await plant.round(38)  # 15 s after the first of the seven
    assert len(await plant.incidents()) == 1


async def test_old_rules_go_on_while_a_new_one_catches_up(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile is told by them at once, and is current."""
    monkeypatch.setattr(watched_readings, "READINGS_LIMIT", 7)
    old = await plant.add_rule({"kind": "threshold", "above": 90}, maxAgeSeconds=2)
    await plant.send([(t, 60.0) for t in range(30)])
    for second in range(30, 40):
        await plant.round(second)
    await plant.add_rule(HOT, forSeconds=86_400)
    await plant.reload(40)
    await plant.send([(40, 95.0)])
    await plant.round(40)
    assert [incident.rule_id for incident in await plant.incidents()] == [old.rule_id]


async def test_a_wider_scope_is_judged_like_a_new_rule(plant: Plant) -> None:
    """A series that others watch, and that a rule comes to include, is wrong already."""
    await plant.add_rule(NEVER)
    rule = await plant.add_rule(HOT, scope={"series": "other"})
    await plant.send([(0, 71.0)])
    await plant.round(1)
    assert await plant.incidents() == []
    await plant.add_rule(HOT, old=rule)
    await plant.reload(2)
    await plant.round(2)
    assert len(await plant.incidents()) == 1


async def test_a_comparison_begins_with_what_the_other_series_was(plant: Plant) -> None:
    """The other one is read again also where its own series has been silent."""
    await plant.add_rule(NEVER)
    await plant.send([(0, 10.0)], "other")
    await plant.round(1)
    await plant.add_rule({"kind": "comparison", "other": "other", "above": 50}, scope={"series": "m"})
    await plant.send([(-2000, 5.0)])
    await plant.reload(2)
    await plant.round(2)
    await plant.send([(20, 80.0)])
    await plant.round(21)
    assert len(await plant.incidents()) == 1


async def test_a_watch_that_was_replaced_is_let_go(plant: Plant) -> None:
    """However often rules are edited, only the newest is kept."""
    await plant.add_rule(HOT)
    await plant.send([(0, 20.0)])
    await plant.round(1)
    first = weakref.ref(plant.watch)
    for second in (2, 3):
        await plant.reload(second)
        await plant.round(second)
    gc.collect()
    assert first() is None


async def test_a_backlog_of_any_size_is_current(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody judged while the platform was down is told, also where one round does not read all of it."""
    monkeypatch.setattr(watched_readings, "READINGS_LIMIT", 7)
    await plant.add_rule(HOT, maxAgeSeconds=10)
    await plant.add_rule({"kind": "stuck"}, forSeconds=3600)  # so that all of it is read
    await plant.send([(0, 60.0)])
    await plant.round(1)
    assert plant.rounds is not None
    await plant.rounds.save(plant.at(1))
    plant.kill()
    await plant.send([(t, 71.0 if 22 <= t <= 25 else 60.0 + t % 2) for t in range(2, 200)])
    await plant.load(200, judged_at=1)
    for second in range(200, 240):
        await plant.round(second)
    assert [incident.status for incident in await plant.incidents()] == ["resolved"]


@pytest.mark.parametrize(("watched", "other"), [("m", "n"), ("n", "m")])
async def test_a_comparison_with_a_series_that_nobody_watched_compares_what_belongs_together(
    plant: Plant, watched: str, other: str
) -> None:
    """Two ramps that are always equal are equal in the past too, and a difference of this moment is told."""
    await plant.add_rule({"kind": "threshold", "above": 10_000}, scope={"series": "m"})
    for name in ("m", "n"):
        await plant.send([(float(t), float(t)) for t in range(0, 290, 10)], name)
    await plant.round(290)
    condition = {"kind": "comparison", "other": other, "above": 50, "below": -50}
    await plant.add_rule(condition, scope={"series": watched})
    await plant.send([(290.0, 290.0)], "m")
    await plant.send([(290.0, 290.0)], "n")
    await plant.reload(291)
    await plant.round(291)
    assert await plant.incidents() == []
    await plant.send([(300.0, 300.0)], "m")
    await plant.send([(300.0, 900.0)], "n")
    await plant.round(301)
    assert len(await plant.incidents()) == 1


async def test_compared_series_are_read_equally_far(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage there is more of one than a round reads; the other one waits for it."""
    monkeypatch.setattr(watched_readings, "READINGS_LIMIT", 7)
    condition = {"kind": "comparison", "other": "n", "above": 65, "below": -65}
    await plant.add_rule(condition, scope={"series": "m"})
    await plant.send([(0.0, 0.0)], "m")
    await plant.send([(0.0, 0.0)], "n")
    await plant.round(1)
    await plant.send([(float(t), float(t)) for t in range(1, 301)], "m")
    await plant.send([(float(t), float(t)) for t in range(60, 301, 60)], "n")
    for second in range(301, 360):
        await plant.round(second)
    assert await plant.incidents() == []
    await plant.send([(360.0, 500.0)], "n")
    await plant.round(361)
    assert len(await plant.incidents()) == 1


async def test_absence_of_a_series_that_was_only_compared(plant: Plant) -> None:
    """Its last reading is looked for, although it was watched in a way before."""
    await plant.send([(-3000, 1.0)], "n")
    await plant.send([(0, 1.0)], "m")
    await plant.add_rule({"kind": "comparison", "other": "n", "above": 50}, scope={"series": "m"})
    await plant.round(1)
    await plant.add_rule({"kind": "absence"}, scope={"series": "n"}, forSeconds=3600)
    for second in (2, 700):
        await plant.reload(second)
        await plant.round(second)
    assert len(await plant.incidents()) == 1
