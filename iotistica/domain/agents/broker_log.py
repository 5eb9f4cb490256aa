"""Parses Mosquitto's log for events of agents: connects, session takeovers and disconnects."""

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
    """One log line about one agent."""

    tenant: TenantId
    agent: AgentId
    kind: str
    word: str
    """Events of the same kind are counted separately by this word: the address, or the reason of a disconnect."""
    details: dict[str, Any]


def parse_line(line: bytes) -> BrokerEvent | None:
    """Return the event of a log line; None if it is not about an agent.

    A client's id is its user name, so a client cannot pretend to be another one.
    """
    text = line.decode("utf-8", "replace")
    if match := _CONNECTED.search(text):
        details = {"address": match[1], "protocol": _PROTOCOLS.get(match[3], match[3])}
        return _event(match[2], "broker.connected", match[1], details)
    if match := _TAKEN_OVER.search(text):
        details = {"reason": "the same account connected again; two agents that share one identity cause this"}
        return _event(match[1], "broker.taken_over", "", details)
    if match := _LEFT.search(text):
        return _event(match[1], "broker.left", match[2][:40], {"reason": match[2].rstrip(".")[:WORDS]})
    return None


def _event(user: str, kind: str, word: str, details: dict[str, Any]) -> BrokerEvent | None:
    agent = agent_of_user(user)
    return BrokerEvent(*agent, kind, word, details) if agent else None
