"""What happens is told at once to those who may know it, and to nobody else."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.devices import Device, key_for
from tests.serving import Served, served, until


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("live")
    return server.login("live", "owner")


@pytest.fixture
def device(server: Served, owner: httpx.Client) -> Device:
    return Device(server).join(key_for(owner))


class Stream:
    """Events of a stream, as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self._events: Queue[tuple[str, Any]] = Queue()
        self._passed: list[tuple[str, Any]] = []
        self._lines = response.iter_lines()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        name = ""
        try:
            for line in self._lines:
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self._events.put((name, json.loads(value)))
        except (httpx.HTTPError, httpx.StreamError):
            return

    def next(self, *names: str, seconds: float = 10.0) -> Any:
        """The next event of one of these names; others are kept for who asks for them."""
        for at, (name, content) in enumerate(self._passed):
            if name in names:
                del self._passed[at]
                return content
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                name, content = self._events.get(timeout=left)
            except Empty:
                break
            if name in names:
                return content
            self._passed.append((name, content))
        raise AssertionError(f"no {names} within {seconds} s")

    def is_silent(self, name: str, seconds: float) -> bool:
        try:
            self.next(name, seconds=seconds)
        except AssertionError:
            return True
        return False


@contextmanager
def stream(client: httpx.Client, **query: str) -> Iterator[Stream]:
    with client.stream("GET", "/live", params=query, timeout=30) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        try:
            yield Stream(response)
        finally:  # to close what another thread reads ends nothing
            with suppress(OSError):
                response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def report(device: Device, **facts: Any) -> None:
    body = {device.uuid: {"version": 1, **facts}}
    headers = {"X-Device-API-Key": device.api_key}
    assert httpx.patch(f"{device.base}/device/state", headers=headers, json=body).status_code == 200


def test_a_stream_begins_with_how_it_is_and_goes_on(owner: httpx.Client, device: Device) -> None:
    """State, metrics, readings, logs and presence of a chosen agent; a reconnect begins with a snapshot again."""
    kinds = "state,metrics,readings,logs,events"
    with stream(owner, agents=device.uuid, kinds=kinds) as live, device.connect() as client:
        # Before the first report, or presence could be checked, and the event sent, before the stream begins.
        (shown,) = live.next("snapshot")["agents"]
        assert (shown["agentUuid"], shown["status"], shown["state"]) == (device.uuid, "new", {})
        report(device, os_version="Debian 12")
        assert live.next("state")["state"]["os_version"] == "Debian 12"
        report(device, os_version="Debian 13", cpu_usage=12.5)
        assert live.next("state")["state"]["os_version"] == "Debian 13"
        report(device, cpu_usage=13.5)
        assert [live.next("metrics")["metrics"]["cpu_usage"] for _ in range(2)] == [12.5, 13.5]
        client.publish(f"{device.topic}/endpoints/x", b'{"readings":[{"metric":"m","value":7}]}')
        stored: set[tuple[str, float]] = set()
        # What the agent measured of itself are readings too. Consumers store side by side, in any order.
        while stored != {("m", 7), ("cpu_usage", 12.5), ("cpu_usage", 13.5)}:
            told = live.next("readings")
            assert (told["agentUuid"], told["count"]) == (device.uuid, len(told["readings"]))
            stored |= {(reading["metric_name"], reading["value"]) for reading in told["readings"]}
        client.publish(f"{device.topic}/logs/web", b'{"message":"hello","level":"warn"}')
        line = live.next("logs")["logs"][0]
        assert (line["service"], line["level"], line["message"]) == ("web", "warn", "hello")
        assert live.next("events", seconds=20)["status"] == "online"
    with stream(owner, agents=device.uuid) as live:
        (shown,) = live.next("snapshot")["agents"]
        assert (shown["status"], shown["state"]["os_version"]) == ("online", "Debian 13")


def test_all_agents_of_a_tenant_are_followed_and_no_others(
    server: Served, owner: httpx.Client, device: Device
) -> None:
    """Those of the tenant, without naming them; another tenant hears nothing, and finds none of them."""
    server.add_tenant("deaf")
    other = server.login("deaf", "owner")
    with stream(owner, agents="all") as mine, stream(other, agents="all") as theirs:
        assert device.uuid in {one["agentUuid"] for one in mine.next("snapshot")["agents"]}
        assert theirs.next("snapshot")["agents"] == []
        report(device, uptime=5)
        assert mine.next("state", "metrics")["agentUuid"] == device.uuid
        assert theirs.is_silent("state", 1.0)
    foreign, unknown = (
        other.get("/live", params={"agents": uuid})
        for uuid in (device.uuid, "00000000-0000-4000-8000-000000000000")
    )
    assert (foreign.status_code, foreign.content) == (404, unknown.content)


def test_one_stream_shows_all_agents_in_brief_and_some_in_detail(owner: httpx.Client, device: Device) -> None:
    """What the dashboard needs: presence of all, everything of the one that is looked at, and the overview."""
    with (
        stream(owner, agents="all", kinds="events", details=device.uuid, overview="true") as live,
        device.connect() as client,
    ):
        (shown,) = live.next("snapshot")["agents"]
        assert shown["agentUuid"] == device.uuid
        assert live.next("overview")["status"] in ("ok", "degraded")
        client.publish(f"{device.topic}/endpoints/x", b'{"readings":[{"metric":"m","value":7}]}')
        assert live.next("readings")["readings"][0]["value"] == 7
        stored = live.next("overview", seconds=15)
        while stored["readingsPerSecond"] == 0:
            stored = live.next("overview", seconds=15)
        assert stored["agents"].keys() == {"online", "silent", "offline", "new", "flapping", "failing"}


def test_details_are_of_agents_of_the_tenant(server: Served, owner: httpx.Client, device: Device) -> None:
    """A foreign agent looks like one that nobody has; kinds that there are not are refused."""
    server.add_tenant("live-strangers")
    stranger = server.login("live-strangers", "owner")
    query = {"agents": "all", "kinds": "events"}
    foreign, unknown = (
        stranger.get("/live", params={**query, "details": uuid})
        for uuid in (device.uuid, "00000000-0000-4000-8000-000000000000")
    )
    assert (foreign.status_code, foreign.content) == (404, unknown.content)
    wrong = owner.get("/live", params={**query, "details": device.uuid, "detailKinds": "gossip"})
    assert wrong.json()["errors"][0]["path"] == "detailKinds"


def test_what_makes_no_sense_is_refused(owner: httpx.Client, device: Device) -> None:
    """Before anything is streamed."""
    for query, path in (
        ({"agents": ""}, "agents"),
        ({"agents": "x"}, "agents"),
        ({"agents": device.uuid, "kinds": "gossip"}, "kinds"),
        ({"agents": "all", "kinds": "logs"}, "agents"),
    ):
        answer = owner.get("/live", params=query)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path), answer.text
    key = owner.post("/auth/api-keys", json={"name": "k", "scopes": ["agents.read"]}).json()["key"]
    headers = {"authorization": f"Bearer {key}"}
    refused = httpx.get(f"{device.base}/live", params={"agents": "all", "kinds": "metrics"}, headers=headers)
    assert (refused.status_code, "readings.read" in refused.text) == (403, True)
    assert httpx.get(f"{device.base}/live", params={"agents": "all"}).status_code == 401


def test_only_so_many_listen(owner: httpx.Client) -> None:
    """One user's streams are bounded; the next one is told so, and the others go on."""
    streams = [stream(owner, agents="all") for _ in range(20)]
    opened = [one.__enter__() for one in streams]
    try:
        assert all(one.next("snapshot") for one in opened)
        refused = owner.get("/live", params={"agents": "all"})
        assert (refused.status_code, "20 listeners of one user" in refused.text) == (429, True)
    finally:
        for one in streams:
            one.__exit__(None, None, None)
    until(lambda: can_listen(owner), what="the places are free again")


def can_listen(owner: httpx.Client) -> bool:
    with owner.stream("GET", "/live", params={"agents": "all"}) as response:
        return response.status_code == 200


def test_a_slow_listener_is_dropped_and_holds_up_nobody(
    server: Served, owner: httpx.Client, device: Device
) -> None:
    """It reads nothing while megabytes come; another one gets all of it, and the slow one is told why it ended."""
    noise = "x" * 200_000
    with owner.stream("GET", "/live", params={"agents": device.uuid, "kinds": "state"}) as slow:
        lines = slow.iter_lines()
        assert next(line for line in lines if line == "event: snapshot")
        with stream(owner, agents=device.uuid, kinds="state") as quick:
            quick.next("snapshot")
            for number in range(60):
                report(device, noise=noise, number=number)
                assert quick.next("state")["state"]["number"] == number
        rest = [line for line in lines if line.startswith(("event", 'data: {"reason'))]
        assert rest[-2] == "event: end"
        assert "too slow" in rest[-1]
    assert server.text().count("crashed") == 0


def test_a_stop_ends_every_stream() -> None:
    """At once, with a word; it keeps nobody waiting."""
    with served() as own:
        operator = own.login(None)
        listening = httpx.Client(base_url=operator.base_url, headers=operator.headers)  # not closed by the stop
        with listening, stream(listening, agents="all") as live:
            live.next("snapshot")
            began = time.monotonic()
            stopping = threading.Thread(target=own.stop)
            stopping.start()
            assert "reconnect" in live.next("end")["reason"]
            stopping.join()
            assert time.monotonic() - began < 20


def test_who_may_no_longer_is_no_longer_told(server: Served, owner: httpx.Client, device: Device) -> None:
    """A session that ended ends its streams, within the time between two looks."""
    leaving = server.login("live", "viewer")
    with stream(leaving, agents=device.uuid) as live:
        live.next("snapshot")
        leaving.post("/auth/logout")
        report(device, uptime=time.time())
        end = live.next("end", seconds=30)
        assert "session" in end["reason"]


def messages(ws: Connection, type_: str, seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        message = json.loads(ws.recv(timeout=left))
        if message["type"] == type_:
            return message["data"]
    raise AssertionError(type_)


def test_a_websocket_follows_an_agent(server: Served, owner: httpx.Client, device: Device) -> None:
    """By the words of older dashboards: channels are subscribed to, and each is told with its name."""
    token = owner.headers["authorization"].split()[1]
    base = f"ws://127.0.0.1:{server.http_port}/ws"
    with connect(f"{base}?token={token}&deviceUuid={device.uuid}") as ws, device.connect() as client:
        assert messages(ws, "snapshot")["agents"][0]["agentUuid"] == device.uuid
        for channel in ("system-info", "logs"):
            ws.send(json.dumps({"type": "subscribe", "channel": channel}))
            assert messages(ws, "subscribed") == {"channel": channel}
        report(device, cpu_usage=3.5)
        assert messages(ws, "system-info")["metrics"]["cpu_usage"] == 3.5
        client.publish(f"{device.topic}/logs/web", b"a line")
        assert messages(ws, "logs")["logs"][0]["message"] == "a line"
        for wrong in ("{", '{"type":"subscribe","channel":"shell"}', '{"type":"x"}'):
            ws.send(wrong)
            assert messages(ws, "error")["message"]
        ws.send('{"type":"ping"}')
        assert messages(ws, "pong") == {}
    with connect(f"{base}?token={token}") as ws:
        messages(ws, "snapshot")
        ws.send('{"type":"subscribe","channel":"logs"}')
        assert "must list" in messages(ws, "error")["message"]
    for query, code in (("token=x.y.z", 4401), (f"token={token}&deviceUuid=x", 4400)):
        with connect(f"{base}?{query}") as ws, pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
