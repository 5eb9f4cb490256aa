"""What the learned detectors of a process keep when rules come and go."""

from iotistica.domain.alerts.detector import observe
from iotistica.domain.alerts.detector_state import DetectorState
from tests.integration.alerts.plant import Plant

LEARNED = {"kind": "anomaly"}


async def test_a_detector_that_no_rule_needs_now_stays_stored(plant: Plant) -> None:
    """A rule that is disabled for ten minutes does not cost months of learning."""
    await plant.add_rule({"kind": "threshold", "above": 1000}, scope={"series": "another"})
    rule = await plant.add_rule(LEARNED, scope={"series": "m"})
    other = await plant.add_rule(LEARNED, scope={"series": "n"})
    for name in ("m", "n"):
        await plant.send([(float(second), 20.0 + second % 7) for second in range(0, 600, 60)], name)
    await plant.round(600)
    before = await plant.detectors(600)
    assert before.keys() == {"m", "n"}
    for ended in (rule, other):
        await plant.add_rule(LEARNED, old=ended, is_enabled=False, scope=ended.definition.scope)
        await plant.reload(700)
        await plant.send([(650.0, 21.0)], "n")
        await plant.round(700)
        after = await plant.detectors(1300)
        assert after.keys() == before.keys()
        assert after["m"] == before["m"]


async def test_a_detector_that_is_needed_again_learns_what_it_missed(plant: Plant) -> None:
    """Another rule has judged the readings meanwhile, in the same process."""
    await plant.add_rule({"kind": "threshold", "above": 1000})
    rule = await plant.add_rule(LEARNED)
    values = [(float(second), 20.0 + second % 7) for second in range(0, 1200, 60)]
    await plant.send(values[:10])
    await plant.round(600)
    rule = await plant.add_rule(LEARNED, old=rule, is_enabled=False)
    await plant.reload(610)
    await plant.round(610)
    await plant.send(values[10:])
    await plant.round(1200)
    await plant.add_rule(LEARNED, old=rule)
    await plant.reload(1210)
    await plant.round(1210)
    expected = DetectorState()
    for second, value in values:
        observe(expected, plant.us(second) / 1e6, value)
    assert await plant.detectors(1210) == {"m": expected.to_bytes()}
