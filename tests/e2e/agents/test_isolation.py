"""No agent writes or reads under another's name; judged by what is delivered, for the broker grants every SUBSCRIBE."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.mqtt311 import Client311, RefusedError
from tests.serving import Served, until

READING = b'{"readings":[{"metric":"temperature","value":1}]}'


class Parties(NamedTuple):
    """Three agents: two of a tenant, one of another."""

    port: int
    mine: dict[str, str]
    sibling: dict[str, str]
    foreign: dict[str, str]

    def connect(self, who: dict[str, str], client_id: str = "some-client", **options: object) -> Client311:
        return Client311(self.port, who["username"], who["password"], client_id, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parties(server: Served) -> Parties:
    server.add_tenant("isolated")
    server.add_tenant("neighbour")
    agents = [server.add_agent(tenant) for tenant in ("isolated", "isolated", "neighbour")]
    found = Parties(server.mqtt_port, *agents)

    def lets_in(agent: dict[str, str]) -> bool:
        with contextlib.suppress(RefusedError, ConnectionError):
            found.connect(agent).close()
            return True
        return False

    until(lambda: all(lets_in(agent) for agent in agents), 10)
    return found


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("retain", [False, True])
def test_nothing_is_stored_or_delivered_under_anothers_topic(
    server: Served, parties: Parties, qos: int, retain: bool
) -> None:
    """Of a sibling, of another tenant, on bare or odd topics, whatever client id is claimed."""
    mine, victims = parties.mine, (parties.sibling, parties.foreign)
    listeners = [parties.connect(victim) for victim in victims]
    for listener, victim in zip(listeners, victims, strict=True):
        listener.subscribe(f"{victim['topic']}/#")
    odd = [mine["topic"].rsplit("/", 1)[0], "i", "i/x", "endpoints/modbus", "$SYS/broker/version", "$share/g/i/x"]
    for victim in victims:
        for topic in (f"{victim['topic']}/endpoints/modbus", f"{victim['topic']}/agent/update", *odd):
            for client_id in ("some-client", victim["username"]):
                with contextlib.suppress(ConnectionError, TimeoutError), parties.connect(mine, client_id) as device:
                    device._socket.settimeout(2)
                    device.publish(topic, b"stolen", qos=qos, retain=retain)
    for listener, victim in zip(listeners, victims, strict=True):
        with parties.connect(victim, "second") as device:  # the same user: it takes the session over
            device.subscribe(f"{victim['topic']}/#")
            device.publish(f"{victim['topic']}/own", b"end", qos=0)
            assert device.payloads(b"end") == [b"end"]
        listener.close()
    for tenant, victim in (("isolated", parties.sibling), ("neighbour", parties.foreign)):
        client = server.login(tenant)
        assert client.get(f"/readings/{victim['uuid']}/latest").json()["count"] == 0


FILTERS = {
    "own": ["{own}/#"],
    "another agent": ["{sibling}/#"],
    "another tenant": ["{foreign}/#"],
    "everything": ["#"],
    "everything below i": ["i/#"],
    "plus": ["+/+/+/+/+", "i/+/a/+/endpoints", "+/#"],
    "shared": ["$share/g/i/#", "$share/g/{sibling}/#", "$share/g/#"],
    "several": ["{own}/#", "{sibling}/#", "{foreign}/#", "#"],
    "system": ["$SYS/#", "$CONTROL/#"],
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS.keys())
def test_an_agent_is_delivered_its_own_alone(parties: Parties, filters: list[str]) -> None:
    """However it asks, in one SUBSCRIBE or many; what others publish meanwhile never comes."""
    topics = {
        "own": parties.mine["topic"],
        "sibling": parties.sibling["topic"],
        "foreign": parties.foreign["topic"],
    }
    asked = [text.format(**topics) for text in filters]
    with parties.connect(parties.mine) as listener:
        listener.subscribe(*asked)
        for text in asked:
            listener.subscribe(text)
        for other in (parties.sibling, parties.foreign):
            with parties.connect(other) as device:
                device.publish(f"{other['topic']}/endpoints", b"secret", retain=True)
                device.publish(f"{other['topic']}/endpoints", b"", retain=True)
                device.publish(f"{other['topic']}/endpoints/x/y", b"secret")
        listener.subscribe(f"{parties.mine['topic']}/end")
        listener.publish(f"{parties.mine['topic']}/end", b"end", qos=0)
        assert set(listener.payloads(b"end")) == {b"end"}


@pytest.mark.parametrize("victim", ["sibling", "foreign"])
def test_a_will_does_not_reach_another(parties: Parties, victim: str) -> None:
    """What the broker publishes for a client that dies is checked like what it publishes itself."""
    target = getattr(parties, victim)
    with parties.connect(target) as listener:
        listener.subscribe(f"{target['topic']}/#")
        for topic in (f"{target['topic']}/agent/update", f"{parties.mine['topic']}/own"):
            with contextlib.suppress(RefusedError, ConnectionError):
                parties.connect(parties.mine, will=(topic, b"stolen")).close()  # without DISCONNECT
        listener.publish(f"{target['topic']}/end", b"end", qos=0)
        assert listener.payloads(b"end") == [b"end"]


@pytest.mark.parametrize(("victim", "tenant"), [("sibling", "isolated"), ("foreign", "neighbour")])
def test_a_client_id_takes_nobodys_session(server: Served, parties: Parties, victim: str, tenant: str) -> None:
    """The victim keeps its connection, and when it is away its session and all that is queued in it."""
    target = getattr(parties, victim)
    topic = f"{target['topic']}/agent/update"
    with parties.connect(target, clean=False) as listener:
        listener.subscribe(topic)
        parties.connect(parties.mine, target["username"]).close()
        listener.publish(topic, b"still here", qos=0)
        assert listener.payloads(b"still here") == [b"still here"]
    queued = [f"queued {number}".encode() for number in range(50)]
    with parties.connect(target, clean=False) as listener:
        listener.subscribe(topic)
    for clean in (True, False):
        with parties.connect(parties.mine, target["username"], clean=clean) as thief:
            thief.subscribe(topic)
    with writer(server, tenant) as platform:
        for payload in queued:
            platform.publish(topic, payload)
    with parties.connect(parties.mine, target["username"], clean=False) as thief:
        thief.subscribe(f"{parties.mine['topic']}/end")
        thief.publish(f"{parties.mine['topic']}/end", b"end", qos=0)
        assert thief.payloads(b"end") == [b"end"]
    with parties.connect(target, clean=False) as listener:
        assert listener.payloads(queued[-1]) == queued


@contextlib.contextmanager
def writer(server: Served, tenant: str) -> Iterator[Client311]:
    """A user of the tenant's own that may write to its agents."""
    admin = server.login(tenant, "admin")
    rule = {"topic": "a/+/agent/update", "access": "write"}
    made = admin.post("/mqtt-users", json={"name": f"writer{uuid4().hex[:8]}", "rules": [rule]}).json()

    def attempt() -> Client311 | None:
        with contextlib.suppress(RefusedError, ConnectionError):
            return Client311(server.mqtt_port, made["username"], made["password"])
        return None

    with until(attempt, 10) as client:
        yield client


@pytest.mark.parametrize(("username", "password"), [("", ""), ("i", "wrong"), ("nobody", "x")])
def test_strangers_are_refused(server: Served, username: str, password: str) -> None:
    """Without an account there is no connection."""
    with pytest.raises((RefusedError, ConnectionError)):
        Client311(server.mqtt_port, username, password)
