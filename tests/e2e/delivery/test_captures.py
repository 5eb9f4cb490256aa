"""The public agent's recorded traffic goes in over MQTT and comes out of the REST API."""

from collections.abc import Iterator
from typing import Any

import pytest

from iotistica.domain.agents.reported_state import METRIC_KEYS
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
    found = measured = 0
    for name in FILES:
        for packet in captured.packets(name):
            payload, content = shift.payload(packet)
            sent.append((packet, packet["topic"], payload))
            if "/endpoints/" in packet["topic"]:
                for reading in captured.readings(content):
                    found += 1
                    wanted[f"{reading['deviceName']}.{reading['metric']}", reading["timestamp"]] = reading
            elif packet["topic"].endswith("/state"):
                (report,) = content.values()
                measured += len(METRIC_KEYS & report.keys())  # at the times at which they come
    assert len(wanted) == 48 * 6
    assert agent["topic"].startswith(captured.packets(FILES[0])[0]["topic"].rpartition("/")[0])

    client = server.login(captured.TENANT)
    for times in (1, 2):
        with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
            for packet, topic, payload in sent:
                device.replay(packet, topic, payload)

        def all_found(times: int = times) -> Any:
            ledger = client.get("/ingestion/ledger", params={"agent": captured.AGENT}).json()["readings"]
            return ledger if ledger["found"] == (found + measured) * times else None

        ledger = until(all_found, what="all readings found")
        assert ledger["stored"] == len(wanted) + measured * times
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


def test_compacted_payloads_are_what_plain_ones_would_be(server: Served) -> None:
    """A batch that precedes its dictionary waits for it; then both give the readings that were measured."""
    tenant = server.add_tenant("compacted")
    agent = server.add_agent("compacted")
    shift = captured.moved_now()
    packets = [p for p in captured.packets("mode_dict") if "/endpoints/" in p["topic"] or "/meta/" in p["topic"]]
    first, *rest = packets
    client = server.login(tenant)

    def payloads() -> dict[str, int]:
        return dict(client.get("/ingestion/ledger").json()["payloads"])

    with Client311(server.mqtt_port, agent["username"], agent["password"]) as device:
        device.replay(first, f"{agent['topic']}/endpoints/modbus", shift.payload(first)[0])
        waiting = {"takenIn": 1, "processed": 0, "waiting": 1, "deadLettered": 0}
        until(lambda: client.get("/ingestion/health").json()["parkedMessages"] == 1, what="the parked batch")
        assert payloads() == waiting
        for packet in rest:
            rest_of_topic = packet["topic"].split("/", 4)[4]
            device.replay(packet, f"{agent['topic']}/{rest_of_topic}", shift.payload(packet)[0])
    whole = {"takenIn": len(packets), "processed": len(packets), "waiting": 0, "deadLettered": 0}
    until(lambda: payloads() == whole, what="everything stored")
    batches = [shift.payload(p)[1] for p in packets if "/endpoints/" in p["topic"]]
    wanted = dict(_written_out(batch) for batch in batches for batch in _readings(batch))
    got = {}
    for metric in sorted({metric for metric, _ in wanted}):
        answer = client.get(
            f"/readings/{agent['uuid']}/timeseries", params={"metric": metric, "start": "1h", "limit": 1000}
        ).json()
        for value in answer["readings"]:
            got[metric, _exact(value["time"].replace("+00:00", "Z"))] = (
                value["value"],
                value["unit"],
                value["quality"],
            )
    assert len(wanted) == len(got) == 2 * 12 * 4
    assert got == wanted


def _readings(batch: Any) -> Iterator[list[Any]]:
    """The pairs of each reading of a compacted batch, by position alone."""
    (messages,) = (pair[2] for pair in batch["p"] if pair[0] == "a")
    for message in messages:
        yield from next(pair[2] for pair in message if pair[0] == "a")


def _written_out(pairs: list[Any]) -> tuple[tuple[str, str], tuple[Any, ...]]:
    """A reading as a person reads it off the capture: time, device, two ids twice, perhaps protocol, and on."""
    rest = pairs[5:]
    if rest[0][0] == 3:  # its protocol, which a failed read lacks
        rest = rest[1:]
    (_, metric), (_, value), (_, unit), (_, quality) = rest[:4]
    time, device = pairs[0][1], {1: "plc-001-11111111"}.get(pairs[1][1], pairs[1][1])
    number = None if value is None else float(value)
    return (f"{device}.{metric}", _exact(time)), (number, unit or None, {1: "good", 2: "bad"}[quality])
