"""The public agent's recorded traffic goes in over MQTT and comes out of the REST API."""

from typing import Any

import pytest

from tests import captured
from tests.mqtt311 import Client311
from tests.serving import Served, until

FILES = (
    "first_boot_no_telemetry",
    "second_boot_json_telemetry",
    "mode_msgpack",
    "mode_deflate",
    "mode_msgpack_deflate",
)


@pytest.fixture(scope="module")
def agent(server: Served) -> dict[str, str]:
    server.add_tenant("captures", captured.TENANT)
    return server.add_agent("captures", captured.AGENT)


def test_every_captured_reading_is_read_back_and_a_second_time_adds_no_row(
    server: Served, agent: dict[str, str]
) -> None:
    """Value, time, unit, quality and device of each reading survive; the same traffic again stores nothing."""
    shift = captured.moved_now()
    sent: list[tuple[dict[str, Any], str, bytes]] = []
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    found = 0
    for name in FILES:
        for packet in captured.packets(name):
            payload, content = shift.payload(packet)
            sent.append((packet, packet["topic"], payload))
            if "/endpoints/" in packet["topic"]:
                for reading in captured.readings(content):
                    found += 1
                    wanted[f"{reading['deviceName']}.{reading['metric']}", reading["timestamp"]] = reading
    assert len(wanted) == 48 * 6
    assert agent["topic"].startswith(captured.packets(FILES[0])[0]["topic"].rpartition("/")[0])

    client = server.login(captured.TENANT)
    for times in (1, 2):
        with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
            for packet, topic, payload in sent:
                device.replay(packet, topic, payload)

        def all_found(times: int = times) -> Any:
            ledger = client.get("/ingestion/ledger", params={"agent": captured.AGENT}).json()["readings"]
            return ledger if ledger["found"] == found * times else None

        ledger = until(all_found, what="all readings found")
        assert ledger["stored"] == len(wanted)
        assert ledger["duplicate"] == found * times - len(wanted)
        assert (ledger["rejected"], ledger["conflict"]) == (0, 0)

    got: dict[tuple[str, str], dict[str, Any]] = {}
    for metric in {name for name, _ in wanted}:
        answer = client.get(f"/readings/{captured.AGENT}/timeseries", params={"metric": metric, "start": "2d"})
        assert answer.status_code == 200, answer.text
        for value in answer.json()["readings"]:
            got[metric, value["time"]] = value
    assert {(name, _exact(time)) for name, time in got} == {(name, _exact(time)) for name, time in wanted}
    by_time = {(name, _exact(time)): value for (name, time), value in got.items()}
    for (name, time), reading in wanted.items():
        value = by_time[name, _exact(time)]
        assert value["value"] == (None if reading["value"] is None else float(reading["value"]))
        assert value["unit"] == (reading["unit"] or None)
        assert value["quality"] == {"GOOD": "good", "BAD": "bad"}[reading["quality"]]
        assert value["protocol"] == "modbus"
        assert value["extra"]["device_name"] == reading["deviceName"]
        assert value["extra"]["device_uuid"] == reading["device_uuid"]
        assert value["extra"]["endpoint_uuid"] == reading["endpoint_uuid"]
        assert value["extra"]["metric"] == reading["metric"]


def _exact(time: str) -> str:
    return time.removesuffix("Z").rstrip("0").rstrip(".")


def test_compacted_payloads_are_kept_with_their_bytes(server: Served) -> None:
    """Until dictionaries are understood, what uses them is a dead letter and not lost."""
    tenant = server.add_tenant("compacted")
    agent = server.add_agent("compacted")
    packet = next(p for p in captured.packets("mode_dict") if "/endpoints/" in p["topic"])
    payload, _ = captured.moved_now().payload(packet)
    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.publish(f"{agent['topic']}/endpoints/modbus", payload)
    client = server.login(tenant)
    balance = until(
        lambda: (p := client.get("/ingestion/ledger").json()["payloads"])["deadLettered"] == 1 and p,
        what="the dead letter",
    )
    assert balance == {"takenIn": 1, "processed": 0, "waiting": 0, "deadLettered": 1}
