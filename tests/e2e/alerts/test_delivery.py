"""Messages about incidents: at least once each under one id, in order, and no target delays another."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.receivers import Mailbox, Received, Receiver, mail_server, receiver, status
from tests.serving import Served, new_data_folder, until

SECRETS = ("whsec_" + "A" * 32, "whsec_" + "B" * 32)
HOT = {"kind": "threshold", "above": 70}


class Site:
    """An instance with a receiver and a mailbox, and an owner who is logged in."""

    def __init__(self, server: Served, hooks: Receiver, mailbox: Mailbox) -> None:
        self.server, self.hooks, self.mailbox = server, hooks, mailbox
        self.owner = server.login()
        self.numbers = 0

    def add_agent(self) -> str:
        self.numbers += 1
        answer = self.owner.post("/agents", json={"name": f"gateway-{self.numbers}"})
        uuid: str = answer.json()["agent"]["uuid"]
        return uuid

    def add_target(self, path: str = "/hook", **fields: Any) -> str:
        channel = {"kind": "webhook", "url": self.hooks.url + path, "signingSecrets": SECRETS[:1]}
        body = {"name": f"target {path} {time.time_ns()}", "channel": channel} | fields
        answer = self.owner.post("/notifications/targets", json=body)
        assert answer.status_code == 201, answer.text
        id_: str = answer.json()["targetId"]
        return id_

    def add_rule(self, **fields: Any) -> str:
        body = {"name": f"rule {time.time_ns()}", "condition": HOT} | fields
        answer = self.owner.post("/anomaly/rules", json=body)
        assert answer.status_code == 201, answer.text
        id_: str = answer.json()["ruleId"]
        return id_

    def send(self, agent: str, value: float, metric: str = "temperature") -> None:
        answer = self.owner.post(
            "/readings", params={"agent": agent}, json={"readings": [{"metric": metric, "value": value}]}
        )
        assert answer.status_code == 202, answer.text

    def alerts(self, target: str) -> list[dict[str, Any]]:
        found = self.owner.get("/anomaly/alerts", params={"target": target}).json()["alerts"]
        return list(reversed(found))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with receiver() as hooks, mail_server() as (url, mailbox), new_data_folder() as folder:
        server = Served(folder, IOTISTICA_WEBHOOK_ALLOW="127.0.0.0/8", IOTISTICA_SMTP_URL=url).start()
        try:
            yield Site(server.ready(), hooks, mailbox)
        finally:
            server.stop()


def verify(received: Received, *secrets: str) -> None:
    """Check the signature as a receiver does, with each of these secrets alone."""
    for secret in secrets:
        Webhook(secret).verify(received.raw, received.headers)


def test_one_dead_target_delays_no_other_and_is_replayed_under_its_id(site: Site) -> None:
    """A answers 500 and B 200: B gets one message; A is retried, becomes a dead letter, and keeps its id."""
    agent = site.add_agent()
    site.hooks.answers["/dead"] = status(500)
    dead = site.add_target("/dead", giveUpAfterSeconds=8, routes=[])
    well = site.add_target("/well", routes=[])
    site.add_rule(targets=[dead, well], scope={"agent": agent})
    site.send(agent, 71)
    until(lambda: site.hooks.of("/well"), 10)
    until(lambda: [a["status"] for a in site.alerts(dead)] == ["dead"], 30)
    tried = site.hooks.of("/dead")
    assert len(tried) >= 2
    assert len({received.id for received in tried}) == 1
    stamps = [int(received.headers["webhook-timestamp"]) for received in tried]
    assert stamps == sorted(set(stamps))  # fresh in every attempt
    for received in tried:
        verify(received, SECRETS[0])
    (alert,) = site.alerts(dead)
    details = site.owner.get(f"/anomaly/alerts/{alert['alertId']}").json()
    assert [attempt["statusCode"] for attempt in details["log"]] == [500] * len(tried)
    site.hooks.answers["/dead"] = status(200)
    assert site.owner.post(f"/anomaly/alerts/{alert['alertId']}/replay").status_code == 200
    until(lambda: [a["status"] for a in site.alerts(dead)] == ["delivered"], 10)
    assert site.hooks.of("/dead")[-1].id == alert["alertId"]
    assert site.owner.post(f"/anomaly/alerts/{alert['alertId']}/replay").status_code == 409
    assert len(site.hooks.of("/well")) == 1


def test_two_secrets_sign_each_request(site: Site) -> None:
    """While a secret is replaced, receivers with either of them accept; secrets are never shown again."""
    channel = {"kind": "webhook", "url": site.hooks.url + "/two", "signingSecrets": SECRETS}
    target = site.add_target(channel=channel, routes=[])
    assert site.owner.post(f"/notifications/targets/{target}/test").json()["status"] == "delivered"
    (received,) = site.hooks.of("/two")
    verify(received, *SECRETS)
    shown = site.owner.get(f"/notifications/targets/{target}").json()
    assert shown["channel"]["signingSecrets"] == ["********"] * 2
    again = {name: shown[name] for name in ("name", "channel", "routes")}
    assert site.owner.put(f"/notifications/targets/{target}", json=again).status_code == 200
    site.owner.post(f"/notifications/targets/{target}/test")
    verify(site.hooks.of("/two")[-1], *SECRETS)


def test_other_products_bodies(site: Site) -> None:
    """Alertmanager's version 4, PagerDuty's Events API v2, Slack and Teams, opened and resolved."""
    agent = site.add_agent()
    channels = [
        {"kind": "webhook", "url": f"{site.hooks.url}/{name}", "format": name, **more}
        for name, more in (("alertmanager", {}), ("pagerduty", {"routingKey": "R0"}), ("slack", {}), ("teams", {}))
    ]
    targets = [site.add_target(channel=channel, routes=[]) for channel in channels]
    site.add_rule(targets=targets, scope={"agent": agent}, severity="critical", labels={"team": "heat"})
    for number, value in enumerate((71, 20), 1):
        site.send(agent, value)
        for path in ("/alertmanager", "/pagerduty", "/slack", "/teams"):
            until(partial(site.hooks.has, path, number), 15)
    firing, resolved = (received.body for received in site.hooks.of("/alertmanager"))
    assert (firing["version"], firing["status"], resolved["status"]) == ("4", "firing", "resolved")
    assert firing["commonLabels"]["team"] == "heat"
    assert firing["alerts"][0]["labels"]["metric"] == "temperature"
    trigger, resolve = (received.body for received in site.hooks.of("/pagerduty"))
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"]
    assert (trigger["routing_key"], trigger["payload"]["severity"]) == ("R0", "critical")
    said = [received.body["text"] for received in site.hooks.of("/slack")]
    assert "71 is above 70" in said[0]
    assert [text.split("]")[0] for text in said] == ["[critical", "[resolved"]
    card = site.hooks.of("/teams")[0].body["attachments"][0]["content"]
    assert "71 is above 70" in card["body"][0]["inlines"][0]["text"]


def test_an_e_mail_has_text_and_html_and_belongs_to_its_incident(site: Site) -> None:
    """Opened and resolved are one thread; what an agent calls itself cannot become HTML."""
    agent = site.add_agent()
    target = site.add_target(channel={"kind": "email", "to": ["op@example.com"]}, routes=[])
    site.add_rule(targets=[target], scope={"agent": agent}, name="<b>Boiler</b> & co")
    site.send(agent, 71)
    until(lambda: len(site.mailbox.messages) == 1, 10)
    site.send(agent, 20)
    until(lambda: len(site.mailbox.messages) == 2, 10)
    opened, resolved = site.mailbox.messages
    assert site.mailbox.recipients == [["op@example.com"]] * 2
    assert opened["References"] == resolved["References"]
    assert opened["Message-ID"] != resolved["Message-ID"]
    text, html = (part.get_content() for part in opened.iter_parts())
    assert "<b>Boiler</b> & co" in text
    assert "&lt;b&gt;Boiler&lt;/b&gt; &amp; co" in html
    assert "71 is above 70" in opened["Subject"]


def never(_: Received, connection: socket.socket) -> None:
    time.sleep(30)


def drip(_: Received, connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(1)


sent: list[int] = []


def flood(_: Received, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    total = 0
    try:
        for _part in range(160):
            total += connection.send(b"x" * 65_536)
            time.sleep(0.005)
    finally:
        sent.append(total)


def test_bad_receivers_neither_hold_nor_flood(site: Site) -> None:
    """One never answers, one drips a byte a second, one sends 10 MB: the deadline holds, and others are on time."""
    site.hooks.answers |= {"/never": never, "/drip": drip, "/flood": flood}
    slow = [site.add_target(path, routes=[]) for path in ("/never", "/drip")]
    large, well = site.add_target("/flood", routes=[]), site.add_target("/on-time", routes=[])
    began = time.monotonic()
    results: dict[str, dict[str, Any]] = {}

    def test(target: str) -> None:
        results[target] = site.owner.post(f"/notifications/targets/{target}/test").json()

    threads = [threading.Thread(target=test, args=(target,)) for target in (*slow, large, well)]
    for thread in threads:
        thread.start()
    until(lambda: well in results and large in results, 8)
    assert results[well]["status"] == results[large]["status"] == "delivered"
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 14
    for target in slow:
        assert results[target]["status"] == "dead"
        assert "within 10 s" in results[target]["error"]
    until(lambda: sent, 10)
    assert sent[0] < 8_000_000  # the connection was closed long before the end


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before the message", "before the answer", "after the answer"])
def test_a_kill_between_two_steps_loses_no_message(step: str) -> None:
    """Killed at this step for each transition: each arrives at least once under one id, and is recorded once."""
    with receiver() as hooks, new_data_folder() as folder:
        server = Served(folder, IOTISTICA_WEBHOOK_ALLOW="127.0.0.0/8").start()
        kills: list[str] = []

        def kill_once(received: Received) -> bool:
            if received.id in kills:
                return False
            kills.append(received.id)
            assert server.process is not None
            os.kill(server.process.pid, signal.SIGKILL)
            return True

        def before_answer(received: Received, connection: socket.socket) -> None:
            if not kill_once(received):
                status(200)(received, connection)

        def after_answer(received: Received, connection: socket.socket) -> None:
            status(200)(received, connection)
            kill_once(received)

        try:
            site = Site(server.ready(), hooks, Mailbox())
            agent = site.add_agent()
            target = site.add_target(routes=[])
            site.add_rule(targets=[target], scope={"agent": agent})
            if step == "before the answer":
                hooks.answers["/hook"] = before_answer
            elif step == "after the answer":
                hooks.answers["/hook"] = after_answer
            for number, value in enumerate((71, 20, 71, 20), 1):
                site.send(agent, value)
                if step == "before the message":
                    time.sleep(0.25 * number)  # somewhere between the reading and the message
                    server.kill()
                    server.start().ready()
                    site.owner = server.login()
                else:
                    assert server.process is not None
                    server.process.wait(20)
                    server.start().ready()
                    site.owner = server.login()
                until(partial(hooks.has_ids, number), 20, f"message {number}")
            until(lambda: [a["status"] for a in site.alerts(target)] == ["delivered"] * 4, 20)
            alerts = site.alerts(target)
            assert [alert["kind"] for alert in alerts] == ["opened", "resolved"] * 2
            assert {received.id for received in hooks.received} == {alert["alertId"] for alert in alerts}
            first = list(dict.fromkeys(received.id for received in hooks.received))
            assert first == [alert["alertId"] for alert in alerts]  # in the order of the transitions
            for received in hooks.received:
                verify(received, SECRETS[0])
        finally:
            server.stop()


@pytest.fixture(scope="module")
def stranger(server: Served) -> httpx.Client:
    """The owner of a tenant on a server that allows no private network."""
    return server.login(server.add_tenant(f"refused {time.time_ns()}"), "owner")


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://127.1:{port}/",
        "http://0:{port}/",
        "http://0x7f000001:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1:{port}/",
        "http://100.64.0.1:{port}/",
    ],
)
def test_private_addresses_are_refused_at_the_connection(stranger: httpx.Client, url: str) -> None:
    """Also by the test button, and without telling whether anything is there."""
    with receiver() as hooks:
        target = {"name": url, "channel": {"kind": "webhook", "url": url.format(port=hooks.port)}}
        id_ = stranger.post("/notifications/targets", json=target).json()["targetId"]
        result = stranger.post(f"/notifications/targets/{id_}/test").json()
        assert result["status"] == "dead"
        assert result["error"] == "the address is not allowed; IOTISTICA_WEBHOOK_ALLOW opens private networks"
        assert hooks.opened == 0


def test_a_redirect_is_not_followed(site: Site) -> None:
    """A 302 to an address on loopback reaches nothing."""
    with receiver() as inside:
        site.hooks.answers["/away"] = status(302, f"Location: {inside.url}/secret")
        target = site.add_target("/away", routes=[])
        result = site.owner.post(f"/notifications/targets/{target}/test").json()
        assert (result["status"], result["statusCode"]) == ("dead", 302)
        assert "redirects are not followed" in result["error"]
        assert inside.opened == 0
