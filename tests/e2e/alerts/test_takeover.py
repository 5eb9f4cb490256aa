"""Two processes that could apply the rules: one does, another takes over, and nothing is opened twice."""

import threading
import time
from uuid import uuid4

import pytest

from tests.conftest import new_stack
from tests.receivers import receiver
from tests.serving import Served, new_data_folder, until

SERIES = 12


@pytest.mark.slow
@pytest.mark.built_in_postgres
def test_a_takeover_under_load_opens_no_second_incident() -> None:
    """The process that applies the rules is killed while series fire and readings flow; each fires once."""
    with (
        new_stack() as stack,
        receiver() as hooks,
        new_data_folder() as zero,
        new_data_folder() as one,
        new_data_folder() as two,
    ):
        environment = stack.urls() | {"IOTISTICA_WEBHOOK_ALLOW": "127.0.0.0/8", "IOTISTICA_USER_LIMIT": "1000000"}
        api = Served(zero, **environment).start("--roles", "api")
        first = Served(one, **environment).start("--roles", "ingest")
        second = Served(two, **environment)
        stop = threading.Event()
        try:
            api.ready()
            first.ready(first.ops_port)
            second.start("--roles", "ingest").ready(second.ops_port)
            owner = api.login()
            agent = owner.post("/agents", json={"name": f"a {uuid4()}"}).json()["agent"]["uuid"]
            channel = {"kind": "webhook", "url": f"{hooks.url}/hook"}
            target = {"name": "hook", "channel": channel, "perMinute": 600}
            assert owner.post("/notifications/targets", json=target).status_code == 201
            for number in range(SERIES):
                rule = {
                    "name": f"rule {number}",
                    "condition": {"kind": "threshold", "above": 70},
                    "scope": {"agent": agent, "series": f"s{number}"},
                }
                assert owner.post("/anomaly/rules", json=rule).status_code == 201

            def flow() -> None:
                client, since = api.login(), time.monotonic()
                while not stop.is_set():
                    hot = int(time.monotonic() - since)  # one more series every second
                    readings = [{"metric": f"s{n}", "value": 71 if n < hot else 20} for n in range(SERIES)]
                    client.post("/readings", params={"agent": agent}, json={"readings": readings})
                    stop.wait(0.1)

            flowing = threading.Thread(target=flow)
            flowing.start()
            until(lambda: len(hooks.received) >= 3, 30)
            first.kill()
            until(lambda: len({r.body["data"]["title"] for r in hooks.received}) == SERIES, 60)
            time.sleep(3)
            stop.set()
            flowing.join()
            found = owner.get("/anomaly/incidents", params={"limit": 100}).json()["incidents"]
            assert sorted(i["title"] for i in found) == sorted(f"rule {n}" for n in range(SERIES))
            assert {(i["status"], i["members"]) for i in found} == {("open", 1)}
            assert len(hooks.received) == SERIES
        finally:
            stop.set()
            for server in (second, first, api):
                server.stop()
