"""No agent writes or reads under another's name."""

import contextlib

import pytest

from tests.mqtt311 import Client311, RefusedError
from tests.serving import Served, until

READING = b'{"readings":[{"metric":"temperature","value":1}]}'


def test_an_agent_stores_nothing_under_another_agents_or_tenants_topic(server: Served) -> None:
    """The broker confines an agent to its own topics, whatever client id it claims."""
    tenant, other = server.add_tenant("isolated"), server.add_tenant("neighbour")
    mine, sibling = server.add_agent("isolated"), server.add_agent("isolated")
    foreign = server.add_agent("neighbour")
    for victim in (sibling, foreign):
        for client_id in ("some-client", victim["username"]):
            with (
                contextlib.suppress(ConnectionError),
                Client311(server.mqtt_port, mine["username"], mine["password"], client_id) as device,
            ):
                device.publish(f"{victim['topic']}/endpoints/modbus", READING)
    with Client311(server.mqtt_port, mine["username"], mine["password"]) as device:
        device.publish(f"{mine['topic']}/endpoints/modbus", READING)

    client, neighbour = server.login(tenant), server.login(other)
    until(lambda: client.get("/ingestion/ledger").json()["payloads"]["processed"] == 1, what="own message")
    assert client.get("/ingestion/ledger").json()["payloads"]["takenIn"] == 1
    assert neighbour.get("/ingestion/ledger").json()["payloads"]["takenIn"] == 0
    for client_, agent in ((client, sibling), (neighbour, foreign)):
        assert client_.get(f"/readings/{agent['uuid']}/latest").json()["count"] == 0


def test_an_agent_reads_nothing_of_another(server: Served) -> None:
    """A subscription to everything delivers an agent's own topics alone."""
    server.add_tenant("readers")
    mine, sibling = server.add_agent("readers"), server.add_agent("readers")
    with Client311(server.mqtt_port, mine["username"], mine["password"]) as listener:
        listener.subscribe("i/#")
        with Client311(server.mqtt_port, sibling["username"], sibling["password"]) as device:
            device.publish(f"{sibling['topic']}/endpoints/modbus", READING)
        listener.publish(f"{mine['topic']}/endpoints/own", READING, qos=0)
        kind, body = listener.read()
    assert kind & 0xF0 == 0x30
    assert f"{mine['topic']}/endpoints/own".encode() in body


@pytest.mark.parametrize(("username", "password"), [("", ""), ("i", "wrong"), ("nobody", "x")])
def test_strangers_are_refused(server: Served, username: str, password: str) -> None:
    """Without an account there is no connection."""
    with pytest.raises((RefusedError, ConnectionError)):
        Client311(server.mqtt_port, username, password)


def test_a_tenant_sees_nothing_of_another_by_rest(server: Served) -> None:
    """A foreign agent's id and an unknown one are answered alike in every byte."""
    tenant = server.add_tenant("curious")
    server.add_tenant("private")
    foreign = server.add_agent("private")
    client = server.login(tenant)
    unknown = "00000000-0000-4000-8000-000000000000"
    for path in ("/agents/{}", "/readings/{}/latest", "/readings/{}/summary", "/ingestion/ledger?agent={}"):
        theirs, none = client.get(path.format(foreign["uuid"])), client.get(path.format(unknown))
        assert (theirs.status_code, theirs.content) == (404, none.content)
    assert client.get("/agents").json()["agents"] == []
