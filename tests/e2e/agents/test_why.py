"""Agents that send nothing that arrives, and what is told of each."""

import contextlib
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.mqtt311 import Client311, RefusedError
from tests.serving import Served, until


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("silent")
    return server.login("silent", "owner")


def add(server: Served, name: str) -> dict[str, str]:
    done = server.command("agents", "add", name, "--tenant", "silent")
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.partition("\n\n")[0].splitlines())


def connect(server: Served, agent: dict[str, str]) -> Client311:
    def enters() -> Client311 | None:
        with contextlib.suppress(RefusedError):
            return Client311(server.mqtt_port, agent["username"], agent["password"])
        return None

    client: Client311 = until(enters, 10, "the broker has read the account")
    return client


def why(owner: httpx.Client, agent: dict[str, str]) -> dict[str, Any]:
    answer = owner.get(f"/agents/{agent['uuid']}/why")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def first_cause(owner: httpx.Client, agent: dict[str, str]) -> str | None:
    found = why(owner, agent)["causes"]
    return found[0]["cause"] if found else None


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("/endpoint/modbus", "nothing reads the topic endpoint/modbus. Did you mean endpoints/{protocol}?"),
        ("/telemetry", "nothing reads the topic telemetry. Readings belong on endpoints/{protocol}"),
        ("/state/now", "nothing reads the topic state/now. Did you mean state?"),
        ("", "nothing reads the agent's own prefix. Readings belong on endpoints/{protocol}"),
    ],
)
def test_a_message_on_a_topic_that_nobody_reads_is_kept_and_told(
    server: Served, owner: httpx.Client, topic: str, said: str
) -> None:
    """With its bytes, as a dead letter of the tenant, and as the likeliest cause of the silence."""
    agent = add(server, f"mistyped{topic}")
    with connect(server, agent) as client:
        client.publish(agent["topic"] + topic, b'{"readings":[{"metric":"t","value":1}]}')
    until(lambda: first_cause(owner, agent) == "messages_refused", 20, "the cause")
    found = why(owner, agent)
    assert said in found["causes"][0]["text"]
    (refusal,) = found["refusals"]
    letter = owner.get(f"/ingestion/dead-letters/{refusal['details']['id']}").json()
    assert (letter["reason"], letter["agentUuid"]) == ("unknown_topic", agent["uuid"])
    assert owner.get("/ingestion/ledger").json()["payloads"]["deadLettered"] >= 1


def test_a_topic_without_the_prefix_is_told(server: Served, owner: httpx.Client) -> None:
    """An agent may use the topics below its user name, and nobody reads them."""
    agent = add(server, "no prefix")
    with connect(server, agent) as client:
        client.publish(agent["username"] + "/endpoints/modbus", b"{}")
    until(lambda: first_cause(owner, agent) == "messages_refused", 20, "the cause")
    assert f"begin with {agent['topic']}/" in why(owner, agent)["causes"][0]["text"]


def test_a_terminal_obeys_nothing_that_a_device_wrote(server: Served, owner: httpx.Client) -> None:
    """The keys of a document of no known shape are told, without their control characters."""
    agent = add(server, "painter")
    with connect(server, agent) as client:
        client.publish(agent["topic"] + "/endpoints/modbus", b'{"\\u001b[31mred": {"a": [{}]}}')
    until(lambda: first_cause(owner, agent) == "messages_refused", 20, "the cause")
    printed = server.command("agents", "why", agent["uuid"]).stdout
    assert "[31mred" in printed
    assert "\x1b" not in printed


def test_a_denied_topic_reaches_the_timeline(server: Served, owner: httpx.Client) -> None:
    """The broker closes the connection of a client that publishes to a topic of another agent."""
    agent, other = add(server, "stranger"), add(server, "victim")
    with contextlib.suppress(OSError, AssertionError), connect(server, agent) as client:
        client.publish(other["topic"] + "/endpoints/modbus", b"{}")
        client.publish(other["topic"] + "/endpoints/modbus", b"{}")
    until(lambda: first_cause(owner, agent) == "denied_topic", 20, "the cause")
    assert why(owner, agent)["broker"]["denied"]["times"] >= 1


def test_who_never_got_in_is_told_of_refused_log_ins(server: Served, owner: httpx.Client) -> None:
    """The broker does not name the account; the command shows the operator how many were refused, and from where."""
    agent = add(server, "wrong password")
    for _ in range(3):
        with pytest.raises(RefusedError):
            Client311(server.mqtt_port, agent["username"], "wrong")
    assert first_cause(owner, agent) == "never_connected"

    def shown() -> str | None:
        done = server.command("agents", "why", "wrong password", "--tenant", "silent")
        assert done.returncode == 0, done.stderr
        return done.stdout if "refused, account unknown" in done.stdout else None

    text = until(shown, 20, "the refused log-ins")
    assert "1. The agent has never connected: neither to the broker nor over HTTP." in text
    assert "connected     never" in text
    assert "log-ins" not in json.dumps(why(owner, agent))  # those of other tenants could be among them


def test_one_that_sends_has_no_cause(server: Served, owner: httpx.Client) -> None:
    """When its data arrived, and that it is connected; the command finds it by a part of its name."""
    agent = add(server, "boiler house")
    with connect(server, agent) as client:
        client.publish(agent["topic"] + "/endpoints/modbus", b'{"readings":[{"metric":"t","value":1}]}')
        until(
            lambda: why(owner, agent)["causes"] == [] and why(owner, agent)["broker"]["isConnected"], 20, "no cause"
        )
        text = server.command("agents", "why", "boiler", "--tenant", "silent").stdout
    assert "It sends data; the newest reading is of " in text
    assert "connected     2" in text


def test_one_that_was_locked_out_is_told_that_alone(server: Served, owner: httpx.Client) -> None:
    """Nothing else can work before that does."""
    agent = add(server, "revoked one")
    assert owner.post(f"/agents/{agent['uuid']}/revoke").status_code == 200
    found = why(owner, agent)
    assert [cause["cause"] for cause in found["causes"]] == ["locked_out"]
    assert found["account"]["state"] == "revoked"


def test_a_name_that_fits_none_or_several_is_told(server: Served, owner: httpx.Client) -> None:
    """With the candidates; an agent of another tenant is not there for an owner."""
    one, _ = add(server, "twin a"), add(server, "twin b")
    several = server.command("agents", "why", "twin", "--tenant", "silent")
    assert several.returncode == 1
    assert "twin a" in several.stderr
    assert "twin b" in several.stderr
    assert server.command("agents", "why", one["uuid"]).stdout.startswith("twin a")  # a UUID needs no tenant
    assert "has no agent" in server.command("agents", "why", "nobody", "--tenant", "silent").stderr
    server.add_tenant("notsilent")
    assert server.login("notsilent", "owner").get(f"/agents/{quote(one['uuid'])}/why").status_code == 404
