"""Parsing of payloads into readings."""

import json
import math
import zlib
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain import timestamps
from iotistica.domain.delivery import envelopes
from iotistica.domain.delivery.envelopes import ParsedPayload
from iotistica.domain.delivery.key_compaction import NeedsDictionary
from iotistica.domain.telemetry import readings
from iotistica.domain.telemetry.quality import quality_of
from iotistica.domain.telemetry.readings import Reading
from iotistica.errors import InvalidMessage
from iotistica.storage.telemetry.readings import _pack_rows

RECEIVED = timestamps.parse_us("2026-06-01T00:00:00Z")
YEAR = 365 * 86_400_000_000


def parse(document: Any, protocol: str = "modbus") -> ParsedPayload:
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    return envelopes.parse_readings(payload, protocol=protocol, received=RECEIVED, retention_us=YEAR)


def one(**fields: Any) -> Reading:
    (reading,) = parse({"metric": "m", "value": 1, **fields}).readings
    return reading


points = st.fixed_dictionaries(
    {},
    optional={
        "metric": st.text(max_size=5) | st.none() | st.integers(),
        "name": st.text(max_size=5),
        "value": st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(max_size=9)
        | st.lists(st.none()),
        "timestamp": st.sampled_from(["2026-05-31T23:59:59.5Z", "1970-01-01", "x", None, 1780271999, [], 4e18]),
        "unit": st.text(max_size=40) | st.integers(),
        "quality": st.sampled_from(["GOOD", "Bad_NoData", True, 0x80000000, -1, None, [], "?"]),
        "deviceName": st.sampled_from(["plc.1", "", None, 7]),
        "device_uuid": st.uuids().map(str) | st.text(max_size=4),
        "qualityCode": st.text(max_size=5),
        "trend": st.floats(),
        "anomaly_score": st.floats() | st.text(max_size=2),
        "protocol": st.sampled_from(["opcua", None, ""]),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | points,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "readings", "data", "tags", "value", "timestamp", "endpoint", "p", "v", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(points, max_size=6), st.integers(0, 6))
def test_a_bad_neighbour_changes_nothing(batch: list[dict[str, Any]], at: int) -> None:
    """The fast path for valid payloads and the slow path around a bad reading give the same readings."""
    clean = parse({"messages": [{"readings": batch}], "x": 1}) if batch else ParsedPayload([], {})
    dirty = parse({"messages": [{"readings": [*batch[:at], 17, *batch[at:]]}]})
    assert dirty.readings == clean.readings
    assert dirty.rejected.pop("not_an_object") == 1
    assert dirty.rejected == clean.rejected


@given(anything)
def test_every_reading_is_found_once_and_can_be_stored(document: Any) -> None:
    """Any document either raises `InvalidMessage` or results in readings that PostgreSQL can store."""
    try:
        parsed = parse(document)
    except InvalidMessage as exc:
        assert exc.code
        return
    for reading in parsed.readings:
        assert reading.value is None or math.isfinite(reading.value)
        assert "\0" not in reading.metric_name + (reading.unit or "") + json.dumps(reading.extra)
        assert "\\u0000" not in json.dumps(reading.extra)
        assert 0 < len(reading.metric_name.encode()) <= 512
        assert len((reading.unit or "").encode()) <= 64
        assert RECEIVED - YEAR <= reading.time <= RECEIVED + readings.FUTURE
        assert reading.quality in ("good", "bad", "uncertain", "stale", "unknown")
    assert _pack_rows({uuid4(): parsed.readings}).startswith(b"PGCOPY")


def test_the_seven_shapes() -> None:
    """Each accepted envelope gives its readings, each with the innermost timestamp."""
    point, stamp = {"metric": "m", "value": 2}, "2026-05-31T12:00:00Z"
    late = "2026-05-31T13:00:00Z"
    shapes = [
        {"timestamp": late, "messages": [{"timestamp": stamp, "readings": [point]}]},
        {"timestamp": stamp, "readings": [point]},
        point | {"timestamp": stamp},
        [point | {"timestamp": stamp}],
        {"data": {"timestamp": stamp, "readings": [point]}},
        {"timestamp": stamp, "data": [point]},
        {"timestamp": stamp, "node": "n.1", "group": "g", "tags": [{"name": "m", "value": 2}]},
    ]
    for shape in shapes:
        (reading,) = parse(shape).readings
        assert (reading.value, reading.time) == (2.0, timestamps.parse_us(stamp))
    assert reading.metric_name == "n_1.m"


def test_names() -> None:
    """The metric name contains the device name, so two devices of one agent do not share a series."""
    assert one(deviceName="plc.1", metric="a.b").metric_name == "plc_1.a.b"
    assert one(metric=None, nodeName="node", name="name").metric_name == "node"
    assert one(metric="x\0y").metric_name == "xy"
    assert one(metric="n" * 512).metric_name == "n" * 512
    assert parse({"metric": "ü" * 257, "value": 1}).rejected == {"name_too_long": 1}


@pytest.mark.parametrize(
    ("sent", "value", "extra"),
    [
        (True, 1.0, None),
        (False, 0.0, None),
        ("12.5", 12.5, None),
        (" 7 ", 7.0, {"text": " 7 "}),
        ("on", None, {"text": "on"}),
        ("1_000", None, {"text": "1_000"}),
        ("nan", None, {"raw": "nan"}),
        (10**400, None, {"raw": f"1{'0' * 400}"}),
        (None, None, None),
        ([1], None, {"raw": [1]}),
    ],
)
def test_values(sent: Any, value: float | None, extra: dict[str, Any] | None) -> None:
    """Numbers are stored as numbers, text is stored in `extra` with a null value, and NaN is never stored."""
    got = one(value=sent)
    assert (got.value, got.extra) == (value, extra)


def test_times() -> None:
    """The unit of a number is detected from its size; a time in the future is marked, or rejected if far off."""
    when = "2026-05-31T12:00:00.123456Z"
    us = timestamps.parse_us(when)
    for stamp in (
        us / 1e6,
        us / 1e3,
        us,
        us * 1000,
        "2026-05-31T14:00:00.123456+02:00",
        "2026-05-31T12:00:00.123456",
    ):
        assert abs(one(timestamp=stamp).time - us) <= 1
    assert one(timestamp=(RECEIVED + 4_000_000) / 1e6).quality == "good"
    assert one(timestamp=(RECEIVED + 6_000_000) / 1e6).quality == "uncertain"
    assert one(timestamp=(RECEIVED + 6_000_000) / 1e6, quality="BAD").quality == "bad"
    assert one(timestamp=None).time == RECEIVED
    for stamp, reason in ((1, "too_old"), ("2100-01-01", "future"), ("soon", "bad_time"), (True, "bad_time")):
        assert parse({"metric": "m", "value": 1, "timestamp": stamp}).rejected == {reason: 1}


@pytest.mark.parametrize(
    ("sent", "quality"),
    [
        ("GOOD", "good"),
        ("not_connected", "bad"),
        ("GoodClamped", "good"),
        ("UncertainInitialValue", "uncertain"),
        ("2147483648", "bad"),
        (0, "good"),
        (0x40000000, "uncertain"),
        (0x80340000, "bad"),
        (-2147483648, "bad"),
        (True, "good"),
        (False, "bad"),
        ("odd", "unknown"),
        (None, None),
    ],
)
def test_qualities(sent: Any, quality: str | None) -> None:
    """Text, booleans and OPC UA status codes (by their top two bits) are mapped to a quality."""
    assert quality_of(sent) == quality


def test_details_are_kept_within_their_cap() -> None:
    """Details of anomaly detection are kept with the reading; the largest part is dropped first."""
    got = one(qualityCode="READ_ERROR", trend="up", anomaly_score=0.9, baseline_samples=[1] * 9000)
    assert got.extra == {"qualityCode": "READ_ERROR", "trend": "up", "truncated": True}
    assert got.anomaly_score == 0.9


def test_heartbeats_are_no_readings() -> None:
    """Heartbeats are counted, but neither stored nor rejected."""
    parsed = parse({"endpoint": "plc", "state": "online", "stats": {}})
    assert (parsed.readings, parsed.rejected, parsed.heartbeats) == ([], {}, 1)


def test_compacted_payloads_ask_for_their_dictionary() -> None:
    """Without the dictionary, the error names the version that the payload needs."""
    with pytest.raises(NeedsDictionary) as raised:
        parse({"v": 7, "p": [[0, 1]]})
    assert raised.value.version == 7


def test_system_metrics() -> None:
    """Every number in the report becomes a reading of the protocol `system`."""
    report = {
        "cpu_usage": 12.5,
        "memory": {"used": 3, "ok": True},
        "name": "x",
        "timestamp": "2026-05-31T00:00:00Z",
    }
    parsed = envelopes.parse_system_metrics(json.dumps(report).encode(), received=RECEIVED, retention_us=YEAR)
    assert {r.metric_name: r.value for r in parsed.readings} == {
        "cpu_usage": 12.5,
        "memory.used": 3,
        "memory.ok": 1,
    }
    assert {r.protocol for r in parsed.readings} == {"system"}


def deflated(document: bytes) -> bytes:
    return zlib.compress(document, 9)


def test_a_message_without_readings_is_not_passed_over() -> None:
    """A message without `readings` is parsed as a reading or rejected; an empty list is valid."""
    bare = {"metric": "t", "value": 1}
    assert len(parse({"messages": [bare]}).readings) == 1
    assert len(parse({"messages": [bare, {"readings": [bare]}]}).readings) == 2
    assert parse({"messages": [{"x": 1}]}).rejected == {"not_an_object": 1}
    empty: object
    for empty in ({"readings": []}, {"messages": []}, [], {"messages": [{"readings": []}]}):
        assert parse(empty) == ParsedPayload([], {})


def test_a_few_bytes_cannot_ask_for_endless_work() -> None:
    """Payloads that inflate to very many readings, or to names and times of megabytes, are refused early."""
    long = b"\xdb" + (8 << 20).to_bytes(4, "big") + b"a" * (8 << 20)
    tags = b"\x82\xa4node" + long + b"\xa4tags\xdd" + (19_000).to_bytes(4, "big") + b"\x81\xa4name\x01" * 19_000
    assert parse(deflated(tags)).rejected == {"name_too_long": 19_000}
    many = b"\x81\xa8readings\xdd" + (2_000_000).to_bytes(4, "big") + b"\x81\xa4name\x01" * 2_000_000
    with pytest.raises(InvalidMessage, match="too_many_readings"):
        parse(deflated(many))
    listed = b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\x81\xa4name\x01" * 1_000_000
    with pytest.raises(InvalidMessage, match="too_many_readings"):
        parse(deflated(listed))
    times_ = {"timestamp": "1" * (8 << 20) + "x", "readings": [{"metric": "m", "value": 1}] * 19_000}
    assert parse(deflated(json.dumps(times_).encode())).rejected == {"bad_time": 19_000}
    for field in ("unit", "protocol", "quality", "value", "device_uuid", "qualityCode"):
        kept = one(**{field: "\u00fc" * 500_000})
        assert len(json.dumps([kept.unit, kept.protocol, kept.quality, kept.extra])) < 40_000


def test_a_report_of_system_metrics_is_bounded() -> None:
    """A very long key above thousands of numbers does not use its length in memory for each of them."""
    inner = (
        b"\xdf" + (5000).to_bytes(4, "big") + b"".join(b"\xce" + i.to_bytes(4, "big") + b"\1" for i in range(5000))
    )
    payload = deflated(b"\x81\xdb" + (1 << 20).to_bytes(4, "big") + b"a" * (1 << 20) + inner)
    parsed = envelopes.parse_system_metrics(payload, received=RECEIVED, retention_us=YEAR)
    assert (parsed.readings, parsed.rejected) == ([], {"name_too_long": 200, "too_many_metrics": 4800})
