"""Ids as text and as they appear on topics."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain import ids
from iotistica.domain.delivery import topics
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage

Id = TypeVar("Id")


def test_the_documented_examples() -> None:
    """The public agent encodes these ids so."""
    assert ids.encode_tenant(TenantId("a1b2c3d4e5f6")) == "obLD1OX2"
    assert ids.encode_agent(UUID("550e8400-e29b-41d4-a716-446655440000")) == "VQ6EAOKbQdSnFkRmVUQAAA"


@given(st.binary(min_size=6, max_size=6), st.uuids())
def test_ids_survive_the_topic(tenant: bytes, agent: UUID) -> None:
    """What is encoded is decoded to the same, and routes to the same."""
    name = TenantId(tenant.hex())
    assert ids.decode_tenant(ids.encode_tenant(name).encode()) == name
    route = topics.route(f"{ids.agent_topic(name, agent)}/endpoints/modbus/tcp".encode())
    assert (route.tenant, route.agent, route.subtopic) == (name, agent, b"endpoints/modbus/tcp")
    assert topics.protocol_of(route.subtopic) == "modbus"


@given(st.binary(max_size=40))
def test_no_other_text_is_taken_for_an_id(text: bytes) -> None:
    """Either it is refused, or it is the one way to write that id."""
    check_encoding(text, ids.decode_tenant, ids.encode_tenant)
    check_encoding(text, ids.decode_agent, ids.encode_agent)


def check_encoding(text: bytes, decode: Callable[[bytes], Id], encode: Callable[[Id], str]) -> None:
    try:
        found = decode(text)
    except ValueError:
        return
    assert encode(found).encode() == text


@pytest.mark.parametrize(
    ("subtopic", "hint"),
    [
        (b"endpoint/modbus", "Did you mean endpoints/{protocol}?"),
        (b"Endpoints/modbus", "Did you mean endpoints/{protocol}?"),
        (b"metrics/cpu", "Did you mean metrics?"),
        (b"job/7/update", "Did you mean jobs/{id}/update?"),
        (b"telemetry", "Readings belong on endpoints/{protocol}"),
        (b"", "the agent's own prefix"),
        (b"agent/a/b", "Did you mean agent/{word}?"),
        (b"x\x1b[31m\xff", "nothing reads the topic x[31m"),
    ],
)
def test_a_topic_that_nobody_reads_is_the_agents_and_told_with_what_is_read(subtopic: bytes, hint: str) -> None:
    """Its tenant keeps the message, and the reason has no character that a terminal would obey."""
    route = topics.route(b"i/obLD1OX2/a/VQ6EAOKbQdSnFkRmVUQAAA" + (b"/" + subtopic if subtopic else b""))
    assert (route.tenant, route.subtopic, route.is_read) == ("a1b2c3d4e5f6", subtopic, False)
    assert hint in topics.why_unknown(subtopic)
    assert "\x1b" not in topics.why_unknown(subtopic)


@pytest.mark.parametrize(
    "subtopic",
    [
        *("endpoints", "endpoints/modbus/tcp", "metrics", "state", "logs/a/b", "agent/status", "jobs/7/update"),
        *("jobs/start-next", "meta/dictionary", "meta/dictionary/delta"),
    ],
)
def test_every_topic_of_the_documents_is_read(subtopic: str) -> None:
    """None of them is taken for an unknown one."""
    assert topics.route(f"i/obLD1OX2/a/VQ6EAOKbQdSnFkRmVUQAAA/{subtopic}".encode()).is_read


@pytest.mark.parametrize(
    "topic",
    [
        b"",
        b"i/obLD1OX2/b/VQ6EAOKbQdSnFkRmVUQAAA/endpoints/x",
        b"i/obLD1OX/a/VQ6EAOKbQdSnFkRmVUQAAA/endpoints/x",
        b"i/obLD1OX=/a/VQ6EAOKbQdSnFkRmVUQAAA/endpoints/x",
        b"i/obLD1OX2/a/VQ6EAOKbQdSnFkRmVUQAAB/endpoints/x",  # bits beyond the id
        b"i/obLD1OX2/a/VQ6EAOKbQdSnFkRmVUQAAA/endpoints/" + b"x" * 600,
        b"i/\xff\xfe/a/VQ6EAOKbQdSnFkRmVUQAAA/endpoints/x",
    ],
)
def test_a_topic_that_names_nobody_is_refused(topic: bytes) -> None:
    """It is never guessed whose it is."""
    with pytest.raises(InvalidMessage, match="bad_topic"):
        topics.route(topic)
