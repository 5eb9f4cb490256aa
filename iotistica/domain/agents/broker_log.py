"""Parses Mosquitto's log for events of agents: connects, takeovers, disconnects, denials and refused log-ins."""

import re
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import AgentId, TenantId, agent_of_user

WORDS: Final = 200  # characters of a reason that are kept
_CONNECTED: Final = re.compile(r"New client connected from (\S+?):\d+ as (\S+) \(p(\d)[^']*'?")
_TAKEN_OVER: Final = re.compile(r"Client (\S+) already connected, closing old connection")
_LEFT: Final = re.compile(
    r"Client (\S+) (closed its connection|has exceeded timeout|disconnected(?:\.|, | due to |:).*)"
)
# Mosquitto 2.0.11 closes the connection after a denied publish, whose reason code is unknown to its own log.
_DENIED: Final = re.compile(r"Bad socket read/write on client (\S+): Unknown error")
_OPENED: Final = re.compile(r"(\d+): New connection from (\S+):(\d+) on port")
_ENTERED: Final = re.compile(r"New client connected from (\S+):(\d+) as ")
_REFUSED: Final = re.compile(r"(\d+): Client <unknown> disconnected, not authori[sz]ed")
_WAITING: Final = 1000  # connections that have not logged in
_LOGIN_SECONDS: Final = 10  # that a client can take to log in
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
    if match := _DENIED.search(text):
        reason = (
            "the broker closed the connection, as it does after a message to a topic that the agent may not use;"
            " it may use only those below its own prefix"
        )
        return _event(match[1], "broker.denied", "", {"reason": reason})
    if match := _LEFT.search(text):
        return _event(match[1], "broker.left", match[2][:40], {"reason": match[2].rstrip(".")[:WORDS]})
    return None


def _event(user: str, kind: str, word: str, details: dict[str, Any]) -> BrokerEvent | None:
    agent = agent_of_user(user)
    return BrokerEvent(*agent, kind, word, details) if agent else None


class RefusedLogin(NamedTuple):
    """A log-in that the broker refused: its address, or None if several connections could be the one."""

    address: str | None


class RefusedLoginParser:
    """Finds refused log-ins in the log; Mosquitto 2.0 names neither the account nor the address in their line.

    The address is that of the only connection that has opened and not logged in.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], int] = OrderedDict()  # since when, in s, by address and port

    def parse_line(self, line: bytes) -> RefusedLogin | None:
        """Return the refused log-in of a line; None for any other line."""
        text = line.decode("utf-8", "replace")
        if match := _OPENED.search(text):
            self._waiting[match[2], match[3]] = int(match[1])
            if len(self._waiting) > _WAITING:
                self._waiting.popitem(last=False)
        elif match := _ENTERED.search(text):
            self._waiting.pop((match[1], match[2]), None)
        elif match := _REFUSED.search(text):
            return RefusedLogin(self._address(int(match[1])))
        return None

    def _address(self, now: int) -> str | None:
        for key in [key for key, since in self._waiting.items() if since < now - _LOGIN_SECONDS]:
            del self._waiting[key]
        addresses = {address for address, _ in self._waiting}
        if len(addresses) != 1:
            return None
        self._waiting.popitem(last=False)
        return addresses.pop()
