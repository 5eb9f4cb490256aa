"""Why an agent is not, or not yet, what it was told to be: one word, one sentence, and what differs."""

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
    "unknown",
    "polling_off",
    "polling_stopped",
    "silent",
    "not_fetched",
    "not_reported",
    "failing",
    "different",
]
QUIET_AFTER: Final = timedelta(minutes=5)
"""Without a poll, or a report; an agent asks every minute unless it is told otherwise, or pauses after failures."""
_SAME: Final = {"poll_interval": "pollInterval", "data_points": "dataPoints", "registers": "dataPoints"}
_BROKEN: Final = ("offline", "error", "failed")


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an agent: the number of its target and of what it fetched, and when it was heard of."""

    state: str = "active"
    """Of its identity."""
    heard_at: datetime | None = None
    """When anything came of it, readings among that."""
    counter: int
    fetched: int | None = None
    fetched_at: datetime | None = None
    polled_at: datetime | None = None
    reported_at: datetime | None = None
    reported: Any = None
    """The number that it says it has; it begins at 1 with each of its starts."""


class AgentFault(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the agent that does not work, in its own words."""

    what: str
    error: str


def unmet_settings(wanted: Target, reported: Mapping[str, Any], seal: Callable[[Json], Json]) -> list[Change]:
    """What is wanted and not so reported: `before` is what is reported, `after` what is wanted, secrets sealed.

    What the agent has beyond that is its own affair. Of apps it reports images, and nothing of their settings.
    """
    whole = {"apps": _images(wanted.apps), "config": _spelt(wanted.config)}
    apps, config = reported.get("apps"), reported.get("config")
    told = {
        "apps": _images(apps) if isinstance(apps, dict) else {},
        "config": config_as_reported(config) if isinstance(config, dict) else {},
    }
    whole, told = seal(whole), seal(told)
    return documents.differences(_within(told, whole), whole)


def extra_endpoints(wanted: Target, reported: Mapping[str, Any]) -> list[str]:
    """The names of endpoints that the agent has, and its target has not."""
    config = reported.get("config")
    has = config_as_reported(config).get("endpoints") if isinstance(config, dict) else None
    names = {endpoint["name"] for endpoint in wanted.config.get("endpoints") or ()}
    found = [e.get("name") for e in has or () if isinstance(e.get("name"), str)] if isinstance(has, list) else []
    return [name for name in found if name not in names]


def faults(reported: Mapping[str, Any]) -> list[AgentFault]:
    """What the agent itself says does not work: endpoints, and services of apps."""
    found = []
    health = reported.get("endpoints_health")
    for name, facts in health.items() if isinstance(health, dict) else ():
        if isinstance(facts, dict) and (facts.get("status") in _BROKEN or facts.get("connected") is False):
            error = facts.get("lastError") or facts.get("status") or "not connected"
            found.append(AgentFault(what=f"endpoint {name}", error=str(error)))
    apps = reported.get("apps")
    for app in apps.values() if isinstance(apps, dict) else ():
        for service in _list(app, "services"):
            error = service.get("error") or service.get("lastError")
            if error or service.get("status") in _BROKEN:
                what = f"service {service.get('serviceName') or service.get('serviceId')}"
                found.append(AgentFault(what=what, error=str(error or service["status"])))
    return found


def verdict(
    facts: AgentFacts, differences: list[Change], broken: list[AgentFault], *, is_empty: bool, now: datetime
) -> tuple[Verdict, str]:
    """One word and one sentence; `is_empty` when nothing is wanted."""
    if facts.state not in ("registered", "active"):
        return "locked_out", f"The agent is {facts.state}: it is let in neither by HTTP nor by MQTT."
    if is_empty:
        return "nothing_wanted", "Nothing is deployed: neither to the agent nor to its fleet."
    if facts.reported_at is not None and not differences:
        but = f" But {broken[0].what} fails: {broken[0].error[:200]}" if broken else ""
        return "applied", f"The agent reports all that it is told to be.{but}"
    heard = facts.heard_at is not None and now - facts.heard_at < QUIET_AFTER
    polls = facts.polled_at is not None and now - facts.polled_at < QUIET_AFTER
    speaks = facts.reported_at is not None and now - facts.reported_at < QUIET_AFTER
    if facts.polled_at is None and facts.reported_at is None and not heard:
        return "silent", "The agent has never asked nor reported: it has not started since it was registered."
    if facts.polled_at is None:
        return (
            "polling_off",
            "The agent sends and has never asked for its target: a new one is report-only until target sync is"
            " enabled on it, in its own settings.",
        )
    if not polls:
        word: Verdict = "polling_stopped" if speaks else "silent"
        said = "reports, and has not asked for its target" if speaks else "has neither asked nor reported"
        return word, f"The agent {said} since {_at(facts.polled_at)}."
    if facts.fetched is None or facts.fetched < facts.counter:
        return (
            "not_fetched",
            f"The agent asked at {_at(facts.polled_at)}, and gets the new version when it asks next.",
        )
    if facts.fetched_at is not None and (facts.reported_at is None or facts.reported_at <= facts.fetched_at):
        return "not_reported", f"The agent fetched it at {_at(facts.fetched_at)}, and has not reported since."
    if broken:
        return "failing", f"The agent has it and says of {broken[0].what}: {broken[0].error[:200]}"
    if isinstance(facts.reported, (int, float)) and facts.reported < facts.counter:
        return (
            "different",
            f"The agent fetched version {facts.counter}, and still reports {facts.reported:g} and no error.",
        )
    return "different", "The agent has it, and reports something else, with no error."


def _at(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "never"


def _images(apps: Mapping[str, Any]) -> Json:
    """Of each app its services, and of them what is reported as it is wanted."""
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
    """The config with the names of an endpoint's settings that agents report."""
    if not isinstance(config.get("endpoints"), list):
        return config
    endpoints = [{_SAME.get(key, key): value for key, value in e.items()} for e in config["endpoints"]]
    return config | {"endpoints": endpoints}


def _within(told: Any, wanted: Any) -> Any:
    """Of what is told that which is wanted somehow."""
    if isinstance(told, dict) and isinstance(wanted, dict):
        return {key: _within(told[key], value) for key, value in wanted.items() if key in told}
    if isinstance(told, list) and isinstance(wanted, list):
        names, theirs = documents.names_of(wanted), documents.names_of(told)
        if names and theirs:
            by_name = dict(zip(theirs, told, strict=True))
            return [_within(by_name[n], w) for n, w in zip(names, wanted, strict=True) if n in by_name]
    return told
