"""What the broker's log says is read for the agent that it is about."""

from typing import Any
from uuid import UUID

import pytest

from iotistica.domain.agents import broker_log
from iotistica.domain.ids import AgentId, TenantId, agent_user

TENANT = TenantId("a1b2c3d4e5f6")
AGENT = AgentId(UUID(int=7))
USER = agent_user(TENANT, AGENT)


@pytest.mark.parametrize(
    ("line", "kind", "details"),
    [
        (
            f"1795521441: New client connected from 127.0.0.1:43950 as {USER} (p2, c1, k60, u'{USER}').",
            "broker.connected",
            {"address": "127.0.0.1", "protocol": "MQTT 3.1.1"},
        ),
        (
            f"1795521441: New client connected from fe80::1:43950 as {USER} (p5, c0, k60, u'{USER}').",
            "broker.connected",
            {"address": "fe80::1", "protocol": "MQTT 5"},
        ),
        (
            f"1795521441: Client {USER} already connected, closing old connection.",
            "broker.taken_over",
            {"reason": "the same account connected again; two agents that share one identity cause this"},
        ),
        (f"1: Client {USER} closed its connection.", "broker.left", {"reason": "closed its connection"}),
        (
            f"1: Client {USER} has exceeded timeout, disconnecting.",
            "broker.left",
            {"reason": "has exceeded timeout"},
        ),
        (
            f"1: Client {USER} disconnected due to protocol error.",
            "broker.left",
            {"reason": "disconnected due to protocol error"},
        ),
        (
            f"1: Bad socket read/write on client {USER}: Unknown error.",
            "broker.denied",
            {
                "reason": "the broker closed the connection, as it does after a message to a topic that the agent"
                " may not use; it may use only those below its own prefix"
            },
        ),
    ],
)
def test_a_line_about_an_agent_is_read(line: str, kind: str, details: dict[str, Any]) -> None:
    """Who it is, what it is, and what is said besides."""
    said = broker_log.parse_line(line.encode())
    assert said is not None
    assert (said.tenant, said.agent, said.kind, said.details) == (TENANT, AGENT, kind, details)


@pytest.mark.parametrize(
    "line",
    [
        b"1795521441: New connection from 127.0.0.1:43950 on port 18999.",
        b"1795521441: Client <unknown> disconnected, not authorised.",
        b"1795521441: New client connected from 127.0.0.1:1 as iotistica (p5, c0, k60, u'iotistica').",
        f"1: Bad socket read/write on client {USER}: Connection reset by peer.".encode(),
        b"1795521441: Client probe000/p/one closed its connection.",
        b"\xff\xfe",
        b"",
    ],
)
def test_other_lines_are_about_nobody(line: bytes) -> None:
    """The platform's own accounts, and whatever else a broker says."""
    assert broker_log.parse_line(line) is None


def opened(at: int, address: str, port: int) -> bytes:
    return f"{at}: New connection from {address}:{port} on port 1883.".encode()


def entered(at: int, address: str, port: int) -> bytes:
    return f"{at}: New client connected from {address}:{port} as x (p5, c1, k30, u'x').".encode()


REFUSED = b"%d: Client <unknown> disconnected, not authorised."


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([opened(9, "10.0.0.7", 5)], "10.0.0.7"),
        ([opened(9, "fe80::1", 5)], "fe80::1"),
        ([opened(9, "10.0.0.7", 5), opened(9, "10.0.0.7", 6)], "10.0.0.7"),
        ([opened(9, "10.0.0.7", 5), opened(9, "10.0.0.8", 5)], None),
        ([opened(9, "10.0.0.7", 5), opened(9, "10.0.0.8", 5), entered(9, "10.0.0.8", 5)], "10.0.0.7"),
        ([opened(1, "10.0.0.8", 5), opened(15, "10.0.0.7", 5)], "10.0.0.7"),
        ([], None),
    ],
)
def test_a_refused_log_in_has_the_only_address_that_can_be_meant(lines: list[bytes], address: str | None) -> None:
    """The broker names nobody; where two connections are possible, none is guessed."""
    parser = broker_log.RefusedLoginParser()
    assert [parser.parse_line(line) for line in lines] == [None] * len(lines)
    assert parser.parse_line(REFUSED % 15) == broker_log.RefusedLogin(address)
