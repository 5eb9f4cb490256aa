"""Explains why an agent does not run its target state: a verdict, a sentence, and the differences."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from iotistica.domain import documents
from iotistica.domain.control.targets import Json, Target, config_as_reported
from iotistica.domain.documents import Change

Verdict = Literal[
    "locked_out",
    "nothing_wanted",
    "applied",
    "polling_off",
    "polling_stopped",
    "silent",
    "not_fetched",
    "not_reported",
    "failing",
    "different",
]
QUIET_AFTER: Final = timedelta(minutes=5)
"""An agent without a poll or a report for this time counts as quiet.

By default agents poll every minute; an interval in the target or a pause after failures makes that longer.
"""
_SAME: Final = {"poll_interval": "pollInterval", "data_points": "dataPoints", "registers": "dataPoints"}
_BROKEN: Final = ("offline", "error", "failed")


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform knows about an agent: the versions of its target and the latest contacts."""

    state: str = "active"
    """The state of the agent's identity."""
    last_seen: datetime | None = None
    """When the latest message of any kind arrived, readings included."""
    counter: int
    """The version of the target."""
    fetched: int | None = None
    """The version that the agent fetched last."""
    fetched_at: datetime | None = None
    polled_at: datetime | None = None
    reported_at: datetime | None = None
    reported: Any = None
    """The version that the agent reports; the agent counts from 1 each time it starts."""


WHAT: Final = 100  # characters of the name of what fails
ERROR: Final = 500  # characters of an error text


class AgentFault(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the agent that does not work, with the agent's own error text."""

    what: str
    error: str


def unmet_settings(wanted: Target, reported: Mapping[str, Any], seal: Callable[[Json], Json]) -> list[Change]:
    """Return what the agent reports differently: `before` is reported, `after` is the target; secrets are sealed.

    Settings that the agent reports and the target lacks are ignored. Of apps only the images are compared, since
    agents do not report an app's settings.
    """
    whole = {"apps": _images(wanted.apps), "config": _spelt(wanted.config)}
    apps, config = reported.get("apps"), reported.get("config")
    actual = {
        "apps": _images(apps) if isinstance(apps, dict) else {},
        "config": config_as_reported(config) if isinstance(config, dict) else {},
    }
    whole, actual = seal(whole), seal(actual)
    return documents.differences(_within(actual, whole), whole)


def extra_endpoints(wanted: Target, reported: Mapping[str, Any]) -> list[str]:
    """Return the names of endpoints that the agent reports and its target does not have."""
    config = reported.get("config")
    endpoints = config_as_reported(config).get("endpoints") if isinstance(config, dict) else None
    wanted_names = {endpoint["name"] for endpoint in wanted.config.get("endpoints") or ()}
    items = endpoints if isinstance(endpoints, list) else []
    names = [e.get("name") for e in items if isinstance(e.get("name"), str)]
    return [name for name in names if name not in wanted_names]


def faults(reported: Mapping[str, Any]) -> list[AgentFault]:
    """Return the endpoints and the services of apps that the agent reports as failing."""
    failing = []
    health = reported.get("endpoints_health")
    for name, facts in health.items() if isinstance(health, dict) else ():
        if isinstance(facts, dict) and (facts.get("status") in _BROKEN or facts.get("connected") is False):
            error = facts.get("lastError") or facts.get("status") or "not connected"
            failing.append(AgentFault(what=f"endpoint {name}"[:WHAT], error=str(error)[:ERROR]))
    apps = reported.get("apps")
    for app in apps.values() if isinstance(apps, dict) else ():
        for service in _list(app, "services"):
            error = service.get("error") or service.get("lastError")
            if error or service.get("status") in _BROKEN:
                what = f"service {service.get('serviceName') or service.get('serviceId')}"
                failing.append(AgentFault(what=what[:WHAT], error=str(error or service["status"])[:ERROR]))
    return failing


def verdict(
    facts: AgentFacts, differences: list[Change], broken: list[AgentFault], *, is_empty: bool, now: datetime
) -> tuple[Verdict, str]:
    """Return the verdict and one or two sentences that explain it; `is_empty` if nothing is deployed."""
    if facts.state not in ("registered", "active"):
        return "locked_out", f"The agent is {facts.state}: both HTTP and MQTT reject it."
    if is_empty:
        return "nothing_wanted", "Nothing is deployed: neither to the agent nor to its fleet."
    if facts.reported_at is not None and not differences:
        fault = f" But {broken[0].what} fails: {broken[0].error[:200]}" if broken else ""
        return "applied", f"The agent reports everything in its target state.{fault}"
    sends_data = facts.last_seen is not None and now - facts.last_seen < QUIET_AFTER
    polls = facts.polled_at is not None and now - facts.polled_at < QUIET_AFTER
    reports = facts.reported_at is not None and now - facts.reported_at < QUIET_AFTER
    if facts.polled_at is None and facts.reported_at is None and not sends_data:
        return "silent", "The agent has never polled or reported: it has not started since it was registered."
    if facts.polled_at is None:
        return (
            "polling_off",
            "The agent sends data but has never polled for its target state. A new agent only reports until target"
            " sync is enabled in the agent's own settings.",
        )
    if not polls:
        word: Verdict = "polling_stopped" if reports else "silent"
        if reports:
            return word, f"The agent reports, but has not polled for its target state since {_at(facts.polled_at)}."
        return word, f"The agent has neither polled nor reported since {_at(facts.polled_at)}."
    if facts.fetched is None or facts.fetched < facts.counter:
        return (
            "not_fetched",
            f"The agent polled at {_at(facts.polled_at)} and gets the new version with its next poll.",
        )
    if facts.fetched_at is not None and (facts.reported_at is None or facts.reported_at <= facts.fetched_at):
        return (
            "not_reported",
            f"The agent fetched the target state at {_at(facts.fetched_at)} and has not reported since.",
        )
    if broken:
        return (
            "failing",
            f"The agent has fetched the target state, but reports that {broken[0].what} fails:"
            f" {broken[0].error[:200]}",
        )
    if isinstance(facts.reported, (int, float)) and facts.reported < facts.counter:
        return (
            "different",
            f"The agent fetched version {facts.counter}, but reports version {facts.reported:g} and no error.",
        )
    return "different", "The agent has fetched the target state, but reports different values and no error."


def _at(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "never"


def _images(apps: Mapping[str, Any]) -> Json:
    """Return each app reduced to its services' ids and images, which agents report unchanged."""
    return {
        str(id_): {
            "services": [
                {key: service.get(key) for key in ("serviceId", "imageName")} for service in _list(app, "services")
            ]
        }
        for id_, app in apps.items()
        if isinstance(app, dict)
    }


def _list(value: Any, key: str) -> list[Json]:
    items = value.get(key) if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _spelt(config: Json) -> Json:
    """Return the config with the settings of its endpoints renamed to the names that agents report."""
    if not isinstance(config.get("endpoints"), list):
        return config
    endpoints = [{_SAME.get(key, key): value for key, value in e.items()} for e in config["endpoints"]]
    return config | {"endpoints": endpoints}


def _within(actual: Any, wanted: Any) -> Any:
    """Return the reported value without the keys and list members that `wanted` does not have."""
    if isinstance(actual, dict) and isinstance(wanted, dict):
        return {key: _within(actual[key], value) for key, value in wanted.items() if key in actual}
    if isinstance(actual, list) and isinstance(wanted, list):
        wanted_names, actual_names = documents.names_of(wanted), documents.names_of(actual)
        if wanted_names and actual_names:
            by_name = dict(zip(actual_names, actual, strict=True))
            return [_within(by_name[n], w) for n, w in zip(wanted_names, wanted, strict=True) if n in by_name]
    return actual
