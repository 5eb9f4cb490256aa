"""What Mosquitto's log says of agents: who connected from where, whose session was taken over, who left."""

import re
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import AgentId, TenantId, agent_of_user

WORDS: Final = 200  # characters of a reason that are kept
_CONNECTED: Final = re.compile(r"New client connected from (\S+?):\d+ as (\S+) \(p(\d)[^']*'?")
_TAKEN_OVER: Final = re.compile(r"Client (\S+) already connected, closing old connection")
_LEFT: Final = re.compile(
    r"Client (\S+) (closed its connection|has exceeded timeout|disconnected(?:\.|, | due to |:).*)"
)
_PROTOCOLS: Final = {"2": "MQTT 3.1.1", "3": "MQTT 3.1", "4": "MQTT 3.1.1", "5": "MQTT 5"}


class BrokerEvent(NamedTuple):
    """One line about one agent."""

    tenant: TenantId
    agent: AgentId
    kind: str
    word: str
    """What is counted apart."""
    details: dict[str, Any]


def parse_line(line: bytes) -> BrokerEvent | None:
    """A line of the log; None if it is about no agent. A client's id is its user name, so it cannot lie."""
    text = line.decode("utf-8", "replace")
    if found := _CONNECTED.search(text):
        details = {"address": found[1], "protocol": _PROTOCOLS.get(found[3], found[3])}
        return _said(found[2], "broker.connected", found[1], details)
    if found := _TAKEN_OVER.search(text):
        details = {"reason": "the same account connected again: two agents with one identity do this to each other"}
        return _said(found[1], "broker.taken_over", "", details)
    if found := _LEFT.search(text):
        return _said(found[1], "broker.left", found[2][:40], {"reason": found[2].rstrip(".")[:WORDS]})
    return None


def _said(user: str, kind: str, word: str, details: dict[str, Any]) -> BrokerEvent | None:
    who = agent_of_user(user)
    return BrokerEvent(*who, kind, word, details) if who else None
