"""A rule that begins to watch series which others watch already misses nothing, and nothing is judged twice."""

from typing import Any

import pytest

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
