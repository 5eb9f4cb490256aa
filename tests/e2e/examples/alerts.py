"""Events, alert rules, incidents, and the messages about them."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.e2e.examples.recorder import Recorder
from tests.mqtt311 import Client311
from tests.serving import until

RULE: dict[str, Any] = {
    "name": "Boiler too hot",
    "severity": "critical",
    "scope": {"series": "boiler.temperature"},
    "condition": {"kind": "threshold", "above": 70, "clearBelow": 65},
    "labels": {"team": "heat"},
}


def walk(call: Recorder, owner: httpx.Client, created: dict[str, Any]) -> None:
    """Tell somebody that a boiler is too hot, and let that person handle it."""
    agent = created["agent"]["uuid"]
    target = _targets(call, owner)
    policy = call(
        owner,
        "POST /notifications/escalations",
        {"name": "Nights", "steps": [{"afterSeconds": 300, "targets": [target]}]},
        status=201,
    )
    path = {"policy": policy["policyId"]}
    call(owner, "GET /notifications/escalations")
    call(owner, "GET /notifications/escalations/{policy}", path=path)
    changed = {"name": "Nights", "steps": [{"afterSeconds": 600, "targets": [target]}]}
    call(owner, "PUT /notifications/escalations/{policy}", changed, path=path)
    _event(call, owner, created)
    tried = {**RULE, "condition": {"kind": "threshold", "above": 61}}
    call(owner, "POST /anomaly/rules/preview", tried, query={"start": "1h"})
    rule = call(owner, "POST /anomaly/rules", RULE, status=201)["ruleId"]
    call(owner, "GET /anomaly/rules")
    call(owner, "GET /anomaly/rules/{rule}", path={"rule": rule})
    call(owner, "PUT /anomaly/rules/{rule}", {**RULE, "escalation": policy["policyId"]}, path={"rule": rule})
    call(owner, "PATCH /anomaly/rules/{rule}", {"cooldownSeconds": 300}, path={"rule": rule})
    call(owner, "POST /anomaly/rules/{rule}/backtest", path={"rule": rule}, query={"start": "1h"})
    reading = {"deviceName": "boiler", "metric": "temperature", "unit": "degC", "value": 71.2}
    time.sleep(2)  # until the rule is applied
    owner.post("/readings", params={"agent": agent}, json={"readings": [reading]})
    until(lambda: owner.get("/anomaly/incidents", params={"rule": rule}).json()["count"], 20, "the incident")
    _incident(call, owner, rule)
    _silence(call, owner, rule)
    call(owner, "DELETE /anomaly/rules/{rule}", path={"rule": rule}, status=204)
    call(owner, "DELETE /notifications/escalations/{policy}", path=path, status=204)
    call(owner, "DELETE /notifications/targets/{target}", path={"target": target}, status=204)


def _targets(call: Recorder, owner: httpx.Client) -> str:
    mail = {"name": "On-call", "channel": {"kind": "email", "to": ["oncall@example.com"]}}
    routed = {**mail, "routes": [{"minSeverity": "warning", "labels": "team=heat"}], "giveUpAfterSeconds": 5}
    target: str = call(owner, "POST /notifications/targets", mail, status=201)["targetId"]
    path = {"target": target}
    call(owner, "GET /notifications/targets")
    call(owner, "GET /notifications/targets/{target}", path=path)
    call(owner, "PUT /notifications/targets/{target}", routed, path=path)
    call(owner, "POST /notifications/targets/{target}/test", path=path)
    template = {"title": "{{ severity | upcase }} {{ title }}", "text": "{{ summary }}"}
    call(owner, "POST /notifications/targets/preview", {"template": template, "kind": "opened"})
    return target


def _event(call: Recorder, owner: httpx.Client, created: dict[str, Any]) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    event = {
        "msgId": "5d1f0c",
        "metric": "flow",
        "deviceName": "pump-7",
        "timestampMs": int(now.timestamp() * 1000),
        "windowStartMs": int((now - timedelta(minutes=2)).timestamp() * 1000),
        "observedValue": 48.2,
        "anomalyScore": 0.93,
        "severity": "warning",
        "expectedRange": [11.0, 14.0],
        "fingerprint": "flow-high",
    }
    mqtt = created["mqtt"]
    config = mqtt["brokerConfig"]
    topic = mqtt["topics"]["publish"][0].removesuffix("/#")
    with Client311(config["port"], config["username"], config["password"]) as client:
        client.publish(f"{topic}/events/anomaly", json.dumps(event).encode())
    until(lambda: owner.get("/events").json()["count"], 20, "the event")
    call(owner, "GET /events", query={"severity": "warning,critical", "limit": 1})


def _incident(call: Recorder, owner: httpx.Client, rule: str) -> None:
    found = call(owner, "GET /anomaly/incidents", query={"status": "active", "rule": rule})["incidents"]
    path = {"incident": found[0]["incidentId"]}
    call(owner, "POST /anomaly/incidents/{incident}/acknowledge", {"note": "I look after it."}, path=path)
    call(
        owner, "POST /anomaly/incidents/{incident}/notes", {"note": "The pump stands still."}, path=path, status=201
    )
    call(owner, "GET /anomaly/incidents/{incident}/members", path=path)
    until(lambda: owner.get("/anomaly/alerts").json()["count"] >= 2, 20, "the message")
    found = call(owner, "GET /anomaly/alerts", query={"limit": 1})["alerts"]
    alert = {"alert": found[0]["alertId"]}
    until(lambda: owner.get(f"/anomaly/alerts/{alert['alert']}").json()["status"] == "dead", 20, "it is given up")
    call(owner, "GET /anomaly/alerts/{alert}", path=alert)
    call(owner, "POST /anomaly/alerts/{alert}/replay", path=alert)
    call(owner, "POST /anomaly/incidents/{incident}/resolve", {"note": "The pump runs again."}, path=path)
    call(owner, "GET /anomaly/incidents/{incident}", path=path)


def _silence(call: Recorder, owner: httpx.Client, rule: str) -> None:
    silence = {
        "matches": {"rules": [rule]},
        "endsAt": (datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)).isoformat(),
        "reason": "The pump is replaced.",
    }
    path = {"silence": call(owner, "POST /anomaly/silences", silence, status=201)["silenceId"]}
    call(owner, "GET /anomaly/silences", query={"active": "true"})
    call(owner, "GET /anomaly/silences/{silence}", path=path)
    call(owner, "DELETE /anomaly/silences/{silence}", path=path, status=204)
