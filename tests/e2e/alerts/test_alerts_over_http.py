"""Alert rules and what belongs to them over HTTP: mistakes are told with their path, and history can be tried."""

import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.serving import Served, until

UNKNOWN = "00000000-0000-4000-8000-000000000000"
RULE: dict[str, Any] = {"name": "r", "condition": {"kind": "threshold", "above": 70}}


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    return server.login(server.add_tenant(f"alerts {uuid4()}"), "owner")


def paths(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    return [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("route", "body", "path"),
    [
        ("/anomaly/rules", {**RULE, "condition": {"kind": "threshold", "above": "NaN"}}, "condition.above"),
        ("/anomaly/rules", {**RULE, "condition": {"kind": "magic"}}, "condition.kind"),
        ("/anomaly/rules", {**RULE, "condition": {"kind": "threshold", "abov": 1}}, "condition.abov"),
        ("/anomaly/rules", {**RULE, "forSeconds": -1}, "forSeconds"),
        ("/anomaly/rules", {**RULE, "targets": [UNKNOWN]}, "targets[0]"),
        ("/anomaly/rules", {**RULE, "escalation": UNKNOWN}, "escalation"),
        ("/anomaly/rules", {**RULE, "scope": {"tags": "=="}}, "scope.tags"),
        ("/anomaly/silences", {"matches": {}, "endsAt": "2020-01-01T00:00:00Z", "reason": "x"}, "endsAt"),
        ("/anomaly/silences", {"matches": {}, "endsAt": "2090-01-01T00:00:00Z", "reason": "x"}, "endsAt"),
        ("/notifications/targets", {"name": "t", "channel": {"kind": "webhook", "url": "x"}}, "channel.url"),
        (
            "/notifications/targets",
            {"name": "t", "channel": {"kind": "apprise", "url": "json://x"}},
            "channel.kind",
        ),
        (
            "/notifications/targets",
            {"name": "t", "channel": {"kind": "email", "to": ["a@b.c"]}, "template": {"text": "{{ nothing }}"}},
            "template.text",
        ),
        ("/notifications/escalations", {"name": "p", "steps": []}, "steps"),
        (
            "/notifications/escalations",
            {"name": "p", "steps": [{"afterSeconds": 60, "targets": [UNKNOWN]}]},
            "steps[0].targets[0]",
        ),
    ],
)
def test_a_mistake_is_told_with_its_path(owner: httpx.Client, route: str, body: dict[str, Any], path: str) -> None:
    """Whatever is wrong, nothing is stored and the field is named."""
    assert paths(owner.post(route, json=body)) == [path]


def test_a_number_that_is_none_is_refused(owner: httpx.Client) -> None:
    """NaN is no JSON, and 1e999 no number."""
    for number in ("NaN", "1e999", "-Infinity"):
        body = json.dumps(RULE).replace("70", number)
        answer = owner.post("/anomaly/rules", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_policies_cannot_continue_in_a_circle(owner: httpx.Client) -> None:
    """One that continues with itself by way of another is refused; the one that others need stays."""
    mail = {"name": f"t {uuid4()}", "channel": {"kind": "email", "to": ["a@example.com"]}}
    target = owner.post("/notifications/targets", json=mail).json()["targetId"]
    steps = [{"afterSeconds": 60, "targets": [target]}]
    first = owner.post("/notifications/escalations", json={"name": "first", "steps": steps}).json()["policyId"]
    second = owner.post(
        "/notifications/escalations", json={"name": "second", "steps": steps, "next": first}
    ).json()["policyId"]
    answer = owner.put(
        f"/notifications/escalations/{first}", json={"name": "first", "steps": steps, "next": second}
    )
    assert paths(answer) == ["next"]
    assert "first → second → first" in answer.json()["detail"]
    assert owner.delete(f"/notifications/escalations/{first}").status_code == 409


def test_a_rule_over_nothing_is_accepted(owner: httpx.Client) -> None:
    """It can be tried, says "0 series", and is stored: series can come later."""
    rule = {**RULE, "name": f"nothing {uuid4()}", "scope": {"series": "no-such-*"}}
    tried = owner.post("/anomaly/rules/preview", json=rule).json()
    assert (tried["series"], tried["firings"], tried["isComplete"]) == (0, 0, True)
    assert owner.post("/anomaly/rules", json=rule).status_code == 201


def test_a_rule_is_tried_on_history(owner: httpx.Client) -> None:
    """Every kind tells when it would have fired, with points for a plot."""
    agent = owner.post("/agents", json={"name": f"a {uuid4()}"}).json()["agent"]["uuid"]
    now = int(time.time()) - 3600
    readings = [
        {"metric": "wave", "value": 80 if 600 <= second < 1200 else 20 + second % 50, "timestamp": now + second}
        for second in range(0, 3000, 10)
        if not 1500 <= second < 2100
    ]
    owner.post("/readings", params={"agent": agent}, json={"readings": readings})
    until(lambda: owner.get(f"/readings/{agent}/latest").json()["count"])
    scope = {"agent": agent}
    for condition, fields, expected in (
        ({"kind": "threshold", "above": 75}, {}, [(600, 1200)]),
        ({"kind": "threshold", "above": 75}, {"forSeconds": 300}, [(900, 1200)]),
        ({"kind": "threshold", "above": 75}, {"forSeconds": 1000}, []),
        ({"kind": "absence"}, {"forSeconds": 120}, [(1610, 2100), (3110, None)]),
        ({"kind": "stuck"}, {"forSeconds": 300}, [(900, 1200)]),
        ({"kind": "rate", "above": 1.5, "per": "second", "windowSeconds": 0}, {}, [(600, 610)]),
    ):
        rule = {"name": "x", "condition": condition, "scope": scope, **fields}
        found = owner.post("/anomaly/rules/preview", json=rule, params={"start": "2h"}).json()
        times = [
            tuple(
                None if text is None else round(time_of(text) - now)
                for text in (interval["start"], interval["end"])
            )
            for interval in found["intervals"]
        ]
        assert times == expected, condition
        assert found["plots"][0]["metricName"] == "wave"
        assert len(found["plots"][0]["points"]) == 240


def time_of(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_a_rule_is_changed_in_part(owner: httpx.Client) -> None:
    """A merge patch keeps what it does not name, removes what is null, and is checked as a whole."""
    body = {
        **RULE,
        "name": f"patched {uuid4()}",
        "forSeconds": 60,
        "maintenance": {"windows": [{"start": "01:00", "end": "02:00"}]},
    }
    rule = owner.post("/anomaly/rules", json=body).json()["ruleId"]
    changed = owner.patch(f"/anomaly/rules/{rule}", json={"condition": {"above": 80}, "maintenance": None}).json()
    assert (changed["condition"]["above"], changed["forSeconds"], changed["maintenance"]) == (80, 60, None)
    assert paths(owner.patch(f"/anomaly/rules/{rule}", json={"forSeconds": "long"})) == ["forSeconds"]
    assert paths(owner.patch(f"/anomaly/rules/{rule}", json={"condition": {"below": 90}})) == ["condition.below"]


def test_quotas_limit_rules(server: Served) -> None:
    """A tenant has as many rules as it may have, and is told what to do."""
    tenant = server.add_tenant(f"few {uuid4()}")
    assert server.command("tenants", "quotas", tenant, "--alert-rules", "1").returncode == 0
    owner = server.login(tenant, "owner")
    assert owner.post("/anomaly/rules", json=RULE).status_code == 201
    answer = owner.post("/anomaly/rules", json={**RULE, "name": "second"})
    assert (answer.status_code, "1 alert rules" in answer.json()["detail"]) == (409, True)


def test_the_commands(server: Served, owner: httpx.Client) -> None:
    """Rules, incidents and targets on the command line, from nothing to a resolved incident."""
    tenant = server.add_tenant(f"commands {uuid4()}")
    owner = server.login(tenant, "owner")

    def command(*words: str, input_: str = "") -> str:
        done = server.command(*words, "--tenant", tenant, input_=input_)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    mail = {"name": "On-call", "channel": {"kind": "email", "to": ["oncall@example.com"]}}
    target = command("targets", "add", "-", input_=json.dumps(mail))
    assert f"{target}  email     enabled   On-call" in command("targets", "list")
    rule = command("rules", "add", "-", input_=json.dumps({**RULE, "name": "hot", "severity": "critical"}))
    assert f"{rule}  critical  enabled   threshold    hot" in command("rules", "list")
    assert json.loads(command("rules", "show", rule))["condition"] == RULE["condition"]
    agent = owner.post("/agents", json={"name": "boiler"}).json()["agent"]["uuid"]
    owner.post("/readings", params={"agent": agent}, json={"readings": [{"metric": "m", "value": 71}]})
    until(lambda: owner.get("/anomaly/incidents").json()["count"])
    incident = command("incidents", "list").split()[0]
    assert "m of boiler: 71" in command("incidents", "show", incident)
    assert command("incidents", "acknowledge", incident, "--note", "mine") == f"{incident} is acknowledged"
    assert command("incidents", "resolve", incident) == f"{incident} is resolved"
    assert "mine" in command("incidents", "show", incident)
    assert "opened hot" in command("targets", "messages")
    assert command("rules", "disable", rule) == f"{rule} is disabled"
    assert command("rules", "delete", rule) == f"{rule} is deleted"
    assert command("targets", "delete", target) == f"{target} is deleted"
