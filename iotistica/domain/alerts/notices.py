"""Notices: what a message about an incident says, in the bodies that receivers understand."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from iotistica.domain.alerts import chat_messages, message_templates
from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.targets import Template, Webhook
from iotistica.errors import Invalid

Kind = Literal["opened", "escalated", "resolved", "test"]

SHOWN: Final = 20  # members of an incident that a message names
_PAGERDUTY_SEVERITY: Final[dict[Severity, str]] = {"info": "info", "warning": "warning", "critical": "critical"}


class AboutFacts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A series, an agent or an alarm that an incident is about."""

    agent_uuid: UUID | None
    agent_name: str | None
    metric_name: str
    value: float | None
    since: datetime
    bound: float | None = None

    @property
    def text(self) -> str:
        """Return what is wrong in a few words: `boiler.temperature of gateway-7: 71.2 is above 70`."""
        name = " of ".join(part for part in (self.metric_name, self.agent_name) if part)
        if self.value is None:
            return name
        if self.bound is None:
            return f"{name}: {self.value:.6g}"
        where = "above" if self.value > self.bound else "below" if self.value < self.bound else "at"
        return f"{name}: {self.value:.6g} is {where} {self.bound:.6g}"


class NoticeFacts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a notice tells, as it was when the notice was written."""

    kind: Kind
    incident_id: UUID
    title: str
    severity: Severity
    status: str
    rule_id: UUID | None
    opened_at: datetime
    resolved_at: datetime | None
    at: datetime
    """When this happened."""
    members: int
    active_members: int
    labels: dict[str, str]
    about: list[AboutFacts]
    """The first `SHOWN` members, the active ones first."""
    url: str = ""

    @property
    def summary(self) -> str:
        """Return what is wrong, or how many things are."""
        if not self.about:
            return self.title
        first = self.about[0].text
        return first if self.members <= 1 else f"{first}, and {self.members - 1} more"

    @property
    def is_over(self) -> bool:
        return self.kind == "resolved"

    def builtins(self) -> dict[str, Any]:
        """Return the facts as JSON has them, with the summary, for bodies and templates."""
        facts: dict[str, Any] = msgspec.to_builtins(self)
        return facts | {"summary": self.summary}


def title(facts: NoticeFacts, template: Template) -> str:
    """Return the title of a message on one line; a template that fails gives the usual title."""
    word = {"opened": facts.severity, "escalated": f"{facts.severity}, nobody has acknowledged it"}
    usual = f"[{word.get(facts.kind, facts.kind)}] {facts.title}: {facts.summary}"
    return " ".join(_rendered(template.title, facts, usual).split())[:250]


def text(facts: NoticeFacts, template: Template) -> str:
    """Return the text of a message; a template that fails gives the usual text."""
    lines = [
        f"{facts.title} ({facts.severity}, {facts.status})",
        f"Since {facts.opened_at:%Y-%m-%d %H:%M:%S} UTC",
        *([f"Until {facts.resolved_at:%Y-%m-%d %H:%M:%S} UTC"] if facts.resolved_at else []),
        "",
        *(f"- {about.text}" for about in facts.about),
        *([f"… and {facts.members - len(facts.about)} more"] if facts.members > len(facts.about) else []),
        *(["", facts.url] if facts.url else []),
    ]
    return _rendered(template.text, facts, "\n".join(lines))


def _rendered(template: str | None, facts: NoticeFacts, usual: str) -> str:
    if template is None:
        return usual
    try:
        return message_templates.render(template, facts.builtins())
    except Invalid:
        return usual  # it was checked when it was stored; a message that says less is better than none


def html(content: str, url: str) -> str:
    """Return a text as simple HTML for e-mail, with a link to the incident."""
    lines = escape(content).replace("\n", "<br>\n")
    if url:
        lines = lines.replace(escape(url), f'<a href="{escape(url)}">{escape(url)}</a>')
    return f'<!doctype html><html><body style="font-family:sans-serif">{lines}</body></html>'


def body(facts: NoticeFacts, webhook: Webhook, template: Template, *, receiver: str) -> bytes:
    """Return the body of a webhook in its format; the same facts always give the same bytes."""
    match webhook.format:
        case "alertmanager":
            content = _alertmanager(facts, template, receiver)
        case "pagerduty":
            content = _pagerduty(facts, template, webhook.routing_key or "")
        case "slack":
            content = chat_messages.slack(title(facts, template), text(facts, template), facts.url)
        case "teams":
            content = chat_messages.teams(title(facts, template), text(facts, template), facts.url)
        case _:
            content = {
                "type": f"incident.{facts.kind}",
                "timestamp": facts.at,
                "data": facts.builtins() | {"titleText": title(facts, template), "text": text(facts, template)},
            }
    return msgspec.json.encode(content)


def _alertmanager(facts: NoticeFacts, template: Template, receiver: str) -> dict[str, Any]:
    """Return the body of version 4 of Alertmanager's webhook."""
    status = "resolved" if facts.is_over else "firing"
    common = {**facts.labels, "alertname": facts.title, "severity": facts.severity}
    annotations = {"summary": title(facts, template), "description": text(facts, template)}
    ends = facts.resolved_at.isoformat() if facts.resolved_at else "0001-01-01T00:00:00Z"
    alerts = [
        {
            "status": status,
            "labels": common | _names(about),
            "annotations": {"summary": about.text},
            "startsAt": about.since,
            "endsAt": ends,
            "generatorURL": facts.url,
            "fingerprint": f"{facts.incident_id.hex[:12]}{number:04x}",
        }
        for number, about in enumerate(facts.about)
    ]
    return {
        "version": "4",
        "groupKey": str(facts.incident_id),
        "truncatedAlerts": max(facts.members - len(facts.about), 0),
        "status": status,
        "receiver": receiver,
        "groupLabels": {"alertname": facts.title},
        "commonLabels": common,
        "commonAnnotations": annotations,
        "externalURL": facts.url,
        "alerts": alerts,
    }


def _names(about: AboutFacts) -> dict[str, str]:
    found = {"agent": about.agent_name, "agent_uuid": about.agent_uuid, "metric": about.metric_name}
    return {name: str(value) for name, value in found.items() if value}


def _pagerduty(facts: NoticeFacts, template: Template, routing_key: str) -> dict[str, Any]:
    """Return an event of version 2 of PagerDuty's Events API; its incidents are told apart by ours."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if facts.is_over else "trigger",
        "dedup_key": str(facts.incident_id),
    }
    if not facts.is_over:
        event["payload"] = {
            "summary": title(facts, template)[:1024],
            "source": next((str(a.agent_name or a.agent_uuid) for a in facts.about if a.agent_uuid), "iotistica"),
            "severity": _PAGERDUTY_SEVERITY[facts.severity],
            "timestamp": facts.opened_at,
            "custom_details": facts.builtins(),
        }
    return event


def combined(parts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the title and text of one message for several: the first title and how many there are."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0][0]
    return f"{first} (and {len(parts) - 1} more)"[:250], "\n\n".join(f"{t}\n{body}" for t, body in parts)


def example(kind: Kind, now: datetime, *, title_: str = "Boiler too hot") -> NoticeFacts:
    """Return facts for a test message and for previews."""
    facts: Mapping[str, Any] = message_templates.EXAMPLE
    about = msgspec.convert(facts["about"], list[AboutFacts])
    return NoticeFacts(
        kind=kind,
        incident_id=UUID(facts["incidentId"]),
        title=title_,
        severity="critical",
        status="resolved" if kind == "resolved" else "open",
        rule_id=UUID(facts["ruleId"]),
        opened_at=now,
        resolved_at=now if kind == "resolved" else None,
        at=now,
        members=1,
        active_members=0 if kind == "resolved" else 1,
        labels=dict(facts["labels"]),
        about=about,
    )
