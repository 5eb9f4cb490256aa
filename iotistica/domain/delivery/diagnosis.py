"""Says why an agent sends no data: the likely causes, the likeliest first, each with what to do about it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from iotistica.domain.delivery.evidence import RECENT, Evidence, PastEvent

BACKLOG_SECONDS: Final = 60.0
_TAKEOVERS: Final = 3  # within an hour, above which two agents share one identity


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A likely cause: a word for programs, a sentence, and what to do."""

    cause: str
    text: str
    advice: str


def causes(evidence: Evidence) -> list[Cause]:
    """Return the causes that the evidence supports, the likeliest first; none for an agent that sends good data."""
    found = [cause for rule in _RULES if (cause := rule(evidence)) is not None]
    if found and found[0].cause in ("tenant_disabled", "locked_out", "not_registered"):
        return found[:1]  # nothing else can work before this does
    return found


def _tenant_disabled(evidence: Evidence) -> Cause | None:
    if not evidence.tenant_disabled:
        return None
    return Cause(
        cause="tenant_disabled",
        text="The tenant is disabled: HTTP and MQTT reject all of its agents.",
        advice="Enable it with `iotistica tenants enable`.",
    )


def _locked_out(evidence: Evidence) -> Cause | None:
    if evidence.state == "retired":
        instead = f" {evidence.replaced_by} has taken its place." if evidence.replaced_by else ""
        return Cause(
            cause="locked_out",
            text=f"The agent is retired: HTTP and MQTT reject it.{instead}",
            advice="Register the device as a new agent.",
        )
    if evidence.state == "revoked":
        return Cause(
            cause="locked_out",
            text="The agent is revoked: HTTP and MQTT reject it.",
            advice="If it may send again, let it register with `iotistica agents re-enrol`.",
        )
    return None


def _not_registered(evidence: Evidence) -> Cause | None:
    if evidence.state == "new":
        return Cause(
            cause="not_registered",
            text="The agent has not registered since it may do so.",
            advice="Start it with a provisioning key that is valid; `iotistica keys list` shows them.",
        )
    if evidence.state == "registered" and not evidence.has_published:
        return Cause(
            cause="not_registered",
            text="The agent has registered and not proven that it holds its key: it has no account at the broker.",
            advice="Read the agent's own log: its second request, the key exchange, fails or does not arrive.",
        )
    return None


def _refused(evidence: Evidence) -> Cause | None:
    events = evidence.since_data("broker.refused")
    came = evidence.connected
    if not events or (came is not None and came.at > events[0].at):
        return None
    return Cause(
        cause="wrong_password",
        text=f"The broker refused the agent's password {_times(events)}.",
        advice="Give the agent the password that `iotistica agents show` prints.",
    )


def _denied(evidence: Evidence) -> Cause | None:
    events = evidence.since_data("broker.denied")
    if not events:
        return None
    topic = f" ({events[0].details['topic']})" if "topic" in events[0].details else ""
    return Cause(
        cause="denied_topic",
        text=f"The agent used a topic that is not its own{topic} {_times(events)}, and the broker denied it.",
        advice="Let it publish below the topic that `iotistica agents show` prints.",
    )


def _messages_refused(evidence: Evidence) -> Cause | None:
    events = evidence.since_data("message.refused")
    if not events:
        return None
    details = events[0].details
    detail = f": {details['detail']}" if details.get("detail") else ""
    return Cause(
        cause="messages_refused",
        text=f"Messages arrive and cannot be read {_times(events)}. Reason: {details.get('reason')}{detail}",
        advice="Correct what the agent sends. `iotistica dead-letters list` shows the messages themselves.",
    )


def _readings_rejected(evidence: Evidence) -> Cause | None:
    events = evidence.since_data("readings.rejected")
    if not events:
        return None
    reasons = ", ".join(dict.fromkeys(str(event.details.get("reason")) for event in events))
    return Cause(
        cause="readings_rejected",
        text=f"Messages arrive, and readings in them are rejected {_times(events)}. Reasons: {reasons}.",
        advice="Correct what the agent sends; the reasons are explained in docs/mqtt.md. Often it is its clock.",
    )


def _clock(evidence: Evidence) -> Cause | None:
    events = [e for kind in ("clock.ahead", "clock.behind") for e in evidence.since_data(kind)]
    if not events:
        return None
    event = max(events, key=lambda event: event.at)
    way = "ahead" if event.kind == "clock.ahead" else "behind"
    return Cause(
        cause="wrong_clock",
        text=f"The agent's clock is {event.details.get('seconds')} s {way}, so its values are not where you look.",
        advice="Correct the clock, for example with NTP.",
    )


def _shared_identity(evidence: Evidence) -> Cause | None:
    taken = evidence.latest("broker.taken_over")
    if taken is None or taken.times < _TAKEOVERS or evidence.now - taken.at > RECENT:
        return None
    return Cause(
        cause="shared_identity",
        text=f"Two clients use this agent's account: each ends the other's connection ({taken.times} times).",
        advice="Give each device an agent of its own.",
    )


def _backlog(evidence: Evidence) -> Cause | None:
    if evidence.waiting_seconds < BACKLOG_SECONDS:
        return None
    return Cause(
        cause="platform_behind",
        text=f"The platform is behind: a message of the tenant has waited for {evidence.waiting_seconds:.0f} s.",
        advice="GET /health says what the platform waits for; nothing is lost.",
    )


def _devices_fail(evidence: Evidence) -> Cause | None:
    if evidence.is_sending or not evidence.faults:
        return None
    return Cause(
        cause="devices_fail",
        text=f"The agent cannot read its devices: {'; '.join(evidence.faults)[:300]}",
        advice="Check the devices and their network; the agent's log tells more.",
    )


def _absent(evidence: Evidence) -> Cause | None:
    """An agent without new data about which no message tells anything: where its way to the platform ends."""
    if evidence.is_sending:
        return None
    left, came = evidence.latest("broker.left"), evidence.connected
    if evidence.is_connected and came is not None:
        return Cause(
            cause="nothing_published",
            text=f"The agent is connected to the broker since {_at(came.at)} and publishes nothing that arrives.",
            advice="Check that its devices are configured and enabled, and the topic it publishes to.",
        )
    if came is None and evidence.heard_at is None:
        return Cause(
            cause="never_connected",
            text="The agent has never connected: neither to the broker nor over HTTP." + _anonymous(evidence),
            advice="Check host, port, user name and password against what `iotistica agents show` prints, and"
            " whether the device reaches that address.",
        )
    if came is None and not evidence.has_published:
        return Cause(
            cause="no_broker_connection",
            text="The agent reaches the platform over HTTP, but has never connected to the broker."
            + _anonymous(evidence),
            advice="Check that the device reaches the broker's port; a firewall often lets only HTTP pass.",
        )
    when = f" since {_at(left.at)}" if left else ""
    reason = f": it {left.details.get('reason')}" if left else ""
    return Cause(
        cause="disconnected",
        text=f"The agent is not connected to the broker{when}{reason}.",
        advice="Check the device's power and network.",
    )


def _target(evidence: Evidence) -> Cause | None:
    # Its next poll fetches a new version; then it takes a while, and tells of it with a report.
    if evidence.target_verdict in ("applied", "nothing_wanted", "locked_out", "silent", "not_fetched"):
        return None
    if evidence.target_verdict in ("not_reported", "different") and evidence.is_applying:
        return None
    return Cause(
        cause="target_not_applied",
        text=f"It does not run its target state. {evidence.target_reason}",
        advice="Its target beside its report shows what differs; correct the cause, or change the target.",
    )


_RULES: Final[tuple[Callable[[Evidence], Cause | None], ...]] = (
    *(_tenant_disabled, _locked_out, _not_registered, _shared_identity, _refused, _denied, _messages_refused),
    *(_readings_rejected, _clock, _backlog, _devices_fail, _absent, _target),
)


def _anonymous(evidence: Evidence) -> str:
    """What the broker refused without a name can be this agent's log-ins, if it has never got in."""
    if not evidence.refused_logins:
        return ""
    return f" The broker refused {evidence.refused_logins} log-ins of late whose account it does not name."


def _times(events: Sequence[PastEvent]) -> str:
    total = sum(event.times for event in events)
    last = max(event.at for event in events)
    return f"at {_at(last)}" if total == 1 else f"{total} times, the last time at {_at(last)}"


def _at(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
