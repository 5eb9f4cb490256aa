"""What goes wrong in the night: gone series, full batches, deleted things, quiet hours, and errors of others."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from iotistica.domain.alerts.incidents import Cause, NewMember, Subject
from iotistica.domain.alerts.rules import RuleSpec
from iotistica.domain.alerts.silences import Matches
from iotistica.domain.ids import AgentId
from iotistica.errors import Conflict, Invalid
from iotistica.notifications.channels import Channels
from iotistica.notifications.http_client import Answer, HttpClient
from iotistica.notifications.outbox import Outbox
from iotistica.storage.alerts import (
    escalations,
    incident_actions,
    incident_ends,
    incidents,
    notices,
    rules,
    silences,
    targets,
)
from iotistica.storage.alerts.notices import Attempt, DueNotice
from iotistica.storage.alerts.rules import NewRule, StoredRule
from iotistica.storage.history.audit import PLATFORM
from tests.integration.alerts.plant import Plant
from tests.integration.alerts.test_incidents import act, policy, set_status

HOT = {"kind": "threshold", "above": 70}
WEEK = 7 * 86_400


async def edit(plant: Plant, rule: StoredRule, condition: dict[str, Any]) -> StoredRule:
    """Give a rule another condition, as a person does who edits it."""
    definition = msgspec.convert({"condition": condition}, RuleSpec)
    wanted = NewRule(name=rule.name, definition=definition, severity="warning", is_enabled=True)
    assert plant.rounds is not None
    await plant.rounds.save(plant.at(0))
    async with plant.database.transaction() as tx:
        stored = await rules.put(tx, plant.tenant, wanted, old=rule, most=None, by=PLATFORM)
    plant.kill()
    return stored


async def due(plant: Plant, second: float) -> list[DueNotice]:
    async with plant.database.transaction() as tx:
        found = await notices.due(tx, plant.at(second), busy=(), full=(), targets=1000, each=20)
    return [notice for notice in found if notice.tenant_id == plant.tenant]


async def test_a_rule_of_another_kind_begins_without_memory(plant: Plant) -> None:
    """What one kind of condition remembers means nothing to another."""
    rule = await plant.add_rule({"kind": "stuck"}, forSeconds=60)
    await plant.send([(t, 5.0) for t in range(0, 30, 10)])
    await plant.round(30)
    rule = await edit(plant, rule, {"kind": "rate", "below": -100})
    for second in range(40, 200, 10):
        await plant.send([(second, 5.0)])
        await plant.round(second + 1)
    await edit(plant, rule, {"kind": "comparison", "other": "z", "above": 5})
    await plant.send([(210, 5.0)])
    await plant.round(211)
    assert await plant.incidents() == []


async def test_a_series_that_was_gone_before_stays_gone(plant: Plant) -> None:
    """A device that was removed ten days ago wakes nobody, also after a restart."""
    await plant.add_rule({"kind": "absence"}, forSeconds=300)
    await plant.send([(-10 * 86_400, 1.0)], "dead")
    for second in (0, 60, 120):
        await plant.send([(second, 1.0)], "live")
        await plant.round(second + 1)
        assert plant.rounds is not None
        await plant.rounds.save(plant.at(second + 2))
        plant.kill()
    assert await plant.incidents() == []


async def test_an_absence_can_last_longer_than_a_day(plant: Plant) -> None:
    """Across restarts, and it fires once."""
    plant.start -= timedelta(days=3)
    await plant.accept_since(-86_400)
    await plant.add_rule({"kind": "absence"}, forSeconds=2 * 86_400)
    await plant.send([(0, 1.0)])
    for days, opened in ((0.0, 0), (1.0, 0), (1.9, 0), (2.1, 1), (2.9, 1)):
        await plant.round(days * 86_400 + 1)
        assert len(await plant.incidents()) == opened
        plant.kill()
    assert [i.status for i in await plant.incidents()] == ["open"]


async def test_who_is_behind_calls_nobody_absent(plant: Plant) -> None:
    """After an hour without rules there is more to read than fits in one round: the rest is not missing."""
    await plant.add_rule({"kind": "absence"}, forSeconds=300)
    await plant.send([(0, 1.0)])
    await plant.round(1)
    plant.kill()
    await plant.send([(t / 3, 1.0) for t in range(6, 9000)])
    for _ in range(3):
        await plant.round(3000)
    assert await plant.incidents() == []


async def test_what_was_current_when_it_was_stored_is_told_after_a_downtime(plant: Plant) -> None:
    """A device that reports on change has sent one reading while no process applied the rules."""
    await plant.add_rule(HOT)
    await plant.send([(0, 20.0)])
    await plant.round(1)
    plant.kill()
    await plant.send([(10, 99.0)])
    await plant.load(400, judged_at=1)
    await plant.round(400)
    assert len(await plant.incidents()) == 1


async def test_a_deleted_agent_leaves_no_incident_open(plant: Plant) -> None:
    """Its members go with it; what is left without members is resolved."""
    agent = await plant.add_agent()
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)], agent=agent)
    await plant.round(1)
    async with plant.database.transaction() as tx:
        await tx.execute(
            "DELETE FROM agents WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s",
            {"tenant": plant.tenant, "agent": agent},
        )
    plant.kill()
    await plant.round(10)
    assert [i.status for i in await plant.incidents()] == ["resolved"]


async def test_silent_incidents_keep_no_others_from_being_told(plant: Plant) -> None:
    """However many there are, they are looked at again later, and at the end of their silence."""
    await plant.add_rule(HOT)
    await plant.add_target()
    async with plant.database.transaction() as tx:
        await silences.add(
            *(tx, plant.tenant, Matches(severities=("info",))),
            starts_at=plant.at(-100),
            ends_at=plant.at(600),
            reason="x",
            by=PLATFORM,
        )
        for number in range(250):
            cause = Cause(key=f"event {number}", rule_id=None, title="x", severity="info", grouping="series")
            member = NewMember(
                subject=Subject(plant.agent, f"s{number}"), since=plant.at(-200), ends_at=plant.at(WEEK)
            )
            await incidents.open_members(tx, plant.tenant, cause, [member], plant.at(-200))
    await plant.send([(0, 71.0)])
    for second in range(1, 6):
        await plant.round(second)
    assert await plant.notices() == [("opened", "pending")]
    for second in range(600, 640, 5):
        await plant.round(second)
    assert len(await plant.notices()) == 251


async def test_a_message_that_waits_for_the_morning_holds_up_no_escalation(plant: Plant) -> None:
    """The target is told at night of what nobody acknowledges, although its route waits for its hours."""
    hour = (plant.start.hour + 6) % 24
    window = {"start": f"{hour:02}:00", "end": f"{(hour + 1) % 24:02}:00"}
    target = await plant.add_target(routes=[{"active": {"windows": [window]}}])
    await plant.add_rule(HOT, escalation=str(await policy(plant, (60, [target]))))
    await plant.send([(0, 71.0)])
    await plant.round(1)
    await plant.round(70)
    assert [notice.kind for notice in await due(plant, 71)] == ["escalated"]


async def test_targets_that_wait_for_a_retry_take_no_place(plant: Plant) -> None:
    """Their later messages are not due either; those of other targets are found."""
    blocked = [await plant.add_target() for _ in range(4)]
    rule = await plant.add_rule(HOT, targets=[str(target) for target in blocked])
    await plant.send([(0, 71.0)])
    await plant.round(1)
    for notice in await due(plant, 2):
        attempt = Attempt(at=plant.at(2), seconds=1, status_code=500, error="HTTP 500")
        async with plant.database.transaction() as tx:
            await notices.record(
                tx, plant.tenant, notice.notice_id, attempt, status="pending", due_at=plant.at(900)
            )
    await plant.send([(3, 20.0)])
    await plant.round(4)
    assert await due(plant, 5) == []
    well = await plant.add_target()
    async with plant.database.transaction() as tx:
        old = await rules.get(tx, plant.tenant, rule.rule_id)
        definition = msgspec.structs.replace(old.definition, targets=(well,))
        wanted = NewRule(name=old.name, definition=definition, severity="warning", is_enabled=True)
        await rules.put(tx, plant.tenant, wanted, old=old, most=None, by=PLATFORM)
    plant.kill()
    await plant.send([(6, 71.0)])
    await plant.round(7)
    assert [notice.target_id for notice in await due(plant, 8)] == [well]


async def test_what_a_rule_names_is_not_deleted(plant: Plant) -> None:
    """Neither a target nor a policy: the rule would tell nobody."""
    target = await plant.add_target()
    escalation = await policy(plant, (60, [target]))
    rule = await plant.add_rule(HOT, targets=[str(target)], escalation=str(escalation))
    async with plant.database.transaction() as tx:
        with pytest.raises(Conflict, match=rule.name):
            await targets.delete(tx, plant.tenant, target, by=PLATFORM)
        with pytest.raises(Conflict, match=rule.name):
            await escalations.delete(tx, plant.tenant, escalation, by=PLATFORM)
        await rules.delete(tx, plant.tenant, rule.rule_id, by=PLATFORM)
        with pytest.raises(Conflict, match="policy"):
            await targets.delete(tx, plant.tenant, target, by=PLATFORM)
        await escalations.delete(tx, plant.tenant, escalation, by=PLATFORM)
        await targets.delete(tx, plant.tenant, target, by=PLATFORM)


async def test_a_rule_whose_targets_are_disabled_tells_those_of_the_routes(plant: Plant) -> None:
    """Better somebody than nobody."""
    target = await plant.add_target(routes=[])
    await plant.add_rule(HOT, targets=[str(target)])
    await plant.add_target()
    async with plant.database.transaction() as tx:
        await tx.execute(
            "UPDATE notification_targets SET is_enabled = false WHERE target_id = %(id)s", {"id": target}
        )
    await plant.send([(0, 71.0)])
    await plant.round(1)
    assert len(await plant.notices()) == 1


async def test_an_acknowledgement_stops_an_escalation_that_is_being_tried(plant: Plant) -> None:
    """Also one whose attempt ends only afterwards, and one that failed before."""
    tried, in_flight = await plant.add_target(routes=[]), await plant.add_target(routes=[])
    await plant.add_rule(HOT, escalation=str(await policy(plant, (60, [tried, in_flight]))))
    await plant.send([(0, 71.0)])
    await plant.round(1)
    await plant.round(70)
    failed = Attempt(at=plant.at(71), seconds=1, status_code=500, error="HTTP 500")
    by_target = {notice.target_id: notice for notice in await due(plant, 71)}

    async def fail(notice: DueNotice) -> None:
        async with plant.database.transaction() as tx:
            await notices.record(tx, plant.tenant, notice.notice_id, failed, status="pending", due_at=plant.at(80))

    await fail(by_target[tried])
    await act(plant, incident_actions.acknowledge, 72)
    await fail(by_target[in_flight])
    assert await plant.notices() == [("escalated", "canceled")] * 2


async def test_a_member_that_comes_back_after_a_week_is_told(plant: Plant) -> None:
    """It does not vanish in an incident that somebody acknowledged because of another agent."""
    other = await plant.add_agent()
    await plant.add_rule({"kind": "agent"})
    await plant.add_target()
    await set_status(plant, [plant.agent, other], "offline", 0)
    await plant.round(1)
    await set_status(plant, [other], "online", 100)
    await plant.round(101)
    await act(plant, incident_actions.acknowledge, 102)
    await set_status(plant, [other], "offline", WEEK)
    await plant.round(WEEK + 1)
    assert [i.status for i in await plant.incidents()] == ["acknowledged", "open"]
    assert await plant.notices() == [("opened", "pending")] * 2


async def test_a_state_that_cannot_be_read_is_found_out_anew(plant: Plant) -> None:
    """One bad row does not keep the rules of all tenants from being applied."""
    await plant.add_rule(HOT)
    await plant.send([(0, 1.0)])
    await plant.round(1)
    plant.kill()
    async with plant.database.transaction() as tx:
        await tx.execute(
            "UPDATE alert_states SET packed = '\\x00' WHERE tenant_id = %(tenant)s", {"tenant": plant.tenant}
        )
    await plant.send([(2, 71.0)])
    await plant.round(3)
    assert len(await plant.incidents()) == 1


async def test_what_becomes_worse_is_told_to_those_who_hear_only_of_the_worst(plant: Plant) -> None:
    """An agent's anomaly that turns critical, and nobody is told twice."""
    await plant.add_target(routes=[{"minSeverity": "critical"}])
    await plant.add_target()
    for second, severity in ((0, "warning"), (10, "critical"), (20, "critical")):
        cause = Cause(key="event f", rule_id=None, title="t", severity=severity, grouping="series")  # type: ignore[arg-type]
        member = NewMember(subject=Subject(plant.agent, "m"), since=plant.at(0), ends_at=plant.at(900))
        async with plant.database.transaction() as tx:
            await incidents.open_members(tx, plant.tenant, cause, [member], plant.at(second))
        await plant.round(second + 1)
    assert await plant.notices() == [("opened", "pending")] * 2
    assert [i.severity for i in await plant.incidents()] == ["critical"]


async def test_a_storm_is_told_to_the_targets_of_all_its_members(plant: Plant) -> None:
    """Also of those that join later; each target once."""
    agents: list[AgentId] = [plant.agent, await plant.add_agent(), await plant.add_agent()]
    async with plant.database.transaction() as tx:
        for agent, site in zip(agents, ("berlin", "munich", "oslo"), strict=True):
            await tx.execute(
                "INSERT INTO agent_tags (tenant_id, agent_uuid, key, value)"
                " VALUES (%(tenant)s, %(agent)s, 'site', %(site)s)",
                {"tenant": plant.tenant, "agent": agent, "site": site},
            )
    for site in ("berlin", "munich", "oslo", "paris"):
        await plant.add_target(routes=[{"labels": f"site={site}"}])
    await plant.add_rule({"kind": "agent"})
    await set_status(plant, agents[:2], "offline", 0)
    await plant.round(1)
    assert len(await plant.notices()) == 2
    await set_status(plant, agents, "offline", 10)
    await plant.round(11)
    await plant.round(12)
    assert len(await plant.notices()) == 3


async def test_a_disabled_tenant_is_told_nothing(plant: Plant) -> None:
    """Neither is an incident escalated, nor a message sent."""
    target = await plant.add_target()
    await plant.add_rule(HOT, escalation=str(await policy(plant, (60, [target]))))
    await plant.send([(0, 71.0)])
    await plant.round(1)
    async with plant.database.transaction() as tx:
        await tx.execute("UPDATE tenants SET enabled = false WHERE tenant_id = %(id)s", {"id": plant.tenant})
    plant.kill()
    await plant.round(100)
    assert [kind for kind, _ in await plant.notices() if kind == "escalated"] == []
    assert await due(plant, 101) == []


async def test_a_person_and_the_rules_resolve_at_the_same_time(plant: Plant) -> None:
    """Neither waits for the other forever."""
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(1)
    (incident,) = await plant.incidents()

    async def by_hand() -> None:
        async with plant.database.transaction() as tx:
            await incident_actions.resolve(
                tx, plant.tenant, incident.incident_id, note=None, by=PLATFORM, now=plant.at(5)
            )
            await asyncio.sleep(0.3)

    async def by_rule() -> None:
        await asyncio.sleep(0.1)
        subjects = [Subject(plant.agent, "m")]
        async with plant.database.transaction() as tx:
            await incident_ends.end_members(tx, plant.tenant, incident.cause, subjects, plant.at(6), reason="x")

    await asyncio.gather(by_hand(), by_rule())
    assert [i.status for i in await plant.incidents()] == ["resolved"]


@pytest.mark.parametrize("other", ["a\x1fb", "a\nb", " a"])
def test_a_name_that_no_series_can_have_is_refused(other: str) -> None:
    """It would be compared with nothing."""
    with pytest.raises(Invalid):
        msgspec.convert({"condition": {"kind": "comparison", "other": other, "above": 1}}, RuleSpec).check()


class Odd(HttpClient):
    """Answers as a receiver can, or fails as no receiver should make it."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(())
        self._answer = answer

    async def post(self, url: str, headers: Any, body: bytes) -> Answer:
        if self._answer is None:
            raise ArithmeticError
        return self._answer


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, "HTTP 500", "Fri, 31 Dec 9999 23:59:59 -2359"),
        Answer(500, "HTTP 500", "-1"),
        Answer(503, "HTTP 503", "9" * 400),
        Answer(429, "HTTP 429", "soon"),
        None,
    ],
)
async def test_whatever_a_receiver_answers_the_message_is_tried_again(plant: Plant, answer: Answer | None) -> None:
    """An absurd time to wait, or an error of our own, concerns this message alone and is recorded."""
    target = await plant.add_target()
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(1)
    outbox = Outbox(None, plant.database, plant.box, Channels(Odd(answer), None, None))  # type: ignore[arg-type]
    await outbox._serve(plant.database, target, await due(plant, 2))
    async with plant.database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT status, attempts FROM notices WHERE tenant_id = %(tenant)s", {"tenant": plant.tenant}
        )
        rows = await cursor.fetchall()
    assert rows in ([("pending", 1)], [("dead", 1)])  # dead if its time is over: the plant lives in the past


async def test_a_target_that_is_deleted_meanwhile_stops_nothing(plant: Plant) -> None:
    """Its messages are gone with it."""
    target = await plant.add_target()
    await plant.add_rule(HOT)
    await plant.send([(0, 71.0)])
    await plant.round(1)
    waiting = await due(plant, 2)
    async with plant.database.transaction() as tx:
        await targets.delete(tx, plant.tenant, target, by=PLATFORM)
    outbox = Outbox(None, plant.database, plant.box, Channels(Odd(None), None, None))  # type: ignore[arg-type]
    await outbox._serve(plant.database, target, waiting)
    assert await plant.notices() == []


async def test_the_text_of_a_platform_alarm_is_not_shown(plant: Plant) -> None:
    """It can name another tenant."""
    await plant.add_rule({"kind": "platform"})
    plant.alarms["ledger_imbalance"] = "the ledger of the tenant a1b2c3d4e5f6 is out of balance"
    await plant.round(1)
    (incident,) = await plant.incidents()
    (member,) = await plant.members(incident)
    assert member.metric_name == "alarm ledger_imbalance"
    assert "a1b2c3d4e5f6" not in str(member.details)
    plant.alarms.clear()
    await plant.round(2)
    assert [i.status for i in await plant.incidents()] == ["resolved"]
