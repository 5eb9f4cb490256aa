"""Nothing that a device sends is changed in silence: what was sent is stored, kept beside it, or rejected."""

import gzip
import json
import math
import struct
import zlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iotistica.domain import codec, timestamps
from iotistica.domain.delivery import envelopes
from iotistica.domain.delivery.envelopes import NO_DICTIONARIES, Envelope, ParsedPayload
from iotistica.domain.names import clean_name
from iotistica.domain.telemetry.readings import PayloadContext, Reading
from iotistica.errors import InvalidMessage

RECEIVED = timestamps.parse_us("2026-06-01T00:00:00Z")
YEAR = 365 * 86_400_000_000
T = "2026-05-31T12:00:00Z"
CONTEXT = PayloadContext(protocol="modbus", received=RECEIVED, oldest=RECEIVED - YEAR)


def gzipped(document: bytes) -> bytes:
    """Without a time stamp, since parameters name their tests."""
    return gzip.compress(document, mtime=0)


def parse(payload: bytes | str) -> ParsedPayload:
    payload = payload.encode() if isinstance(payload, str) else payload
    return envelopes.parse_readings(payload, protocol="modbus", received=RECEIVED, retention_us=YEAR)


def shapes(value: str) -> list[str]:
    """Return the JSON of a reading with this value in every shape."""
    reading = f'{{"metric": "m", "value": {value}}}'
    return [
        reading,
        f"[{reading}]",
        f'{{"readings": [{reading}]}}',
        f'{{"messages": [{{"readings": [{reading}]}}]}}',
        f'{{"data": [{reading}]}}',
        f'{{"readings": [{reading}, 5]}}',
        f'{{"node": "", "tags": [{{"name": "m", "value": {value}}}]}}',
        f'{{"timestamp": "{T}", "m": {value}, "n": 0}}',
    ]


EXACT_CASES = [
    ("9007199254740993", 9007199254740992.0, {"raw": "9007199254740993"}),
    ("-9007199254740993", -9007199254740992.0, {"raw": "-9007199254740993"}),
    ("18446744073709551617", 18446744073709551616.0, {"raw": "18446744073709551617"}),
    ("9007199254740992", 9007199254740992.0, None),
    ("0.12345678901234567890", 0.12345678901234568, {"raw": "0.12345678901234567890"}),
    ("9007199254740.993", 9007199254740.992, {"raw": "9007199254740.993"}),
    ("1e-400", 0.0, {"raw": "1e-400"}),
    ("1.2345e-322", 1.24e-322, {"raw": "1.2345e-322"}),
    ("21.399999618530273", 21.399999618530273, None),
    ("21.39999961853027343750", 21.399999618530273, None),
    ("21.50", 21.5, None),
    ('"00123"', 123.0, {"text": "00123"}),
    ('"241408E4"', 2414080000.0, {"text": "241408E4"}),
    ('"1.50"', 1.5, {"text": "1.50"}),
    ('"+7"', 7.0, {"text": "+7"}),
    ('"9007199254740993"', 9007199254740992.0, {"text": "9007199254740993"}),
    ('"21.5"', 21.5, None),
    ('"-3"', -3.0, None),
    ('"\u0661\u0662"', None, {"text": "\u0661\u0662"}),
    ('"\uff11\uff12"', None, {"text": "\uff11\uff12"}),
    ('"1_000"', None, {"text": "1_000"}),
    ('"0x1F"', None, {"text": "0x1F"}),
    ("1e400", None, {"raw": "1e400"}),
    ('"1e400"', None, {"raw": "1e400"}),
]


@pytest.mark.parametrize(("sent", "value", "extra"), EXACT_CASES)
def test_a_number_that_is_not_what_was_sent_says_so(
    sent: str, value: float | None, extra: dict[str, Any] | None
) -> None:
    """In every shape, the double is stored, and what was sent stands beside it where the double differs."""
    for document in shapes(sent):
        reading = next(r for r in parse(document).readings if r.metric == "m")
        assert (reading.value, reading.extra) == (value, extra), document
        assert reading.quality == ("good" if value is not None or extra != {"raw": "1e400"} else "bad"), document


def test_messagepack_and_compression_keep_what_was_sent_too() -> None:
    """Integers beyond 2^53 and text of digits are kept in every encoding."""
    document = {"readings": [{"metric": "i", "value": 2**63 + 1}, {"metric": "t", "value": "007"}]}
    packed = msgspec.msgpack.encode(document)
    for payload in (packed, zlib.compress(packed), gzipped(packed), json.dumps(document).encode()):
        integer, text = parse(payload).readings
        assert (integer.value, integer.extra) == (float(2**63), {"raw": str(2**63 + 1)})
        assert (text.value, text.extra) == (7.0, {"text": "007"})


def test_a_quality_that_says_more_is_kept() -> None:
    """A word or a status code that is mapped to a quality stays with the reading, in `extra.quality`."""
    for sent, quality, extra in (
        ("GoodClamped", "good", {"quality": "GoodClamped"}),
        (0x80340000, "bad", {"quality": 0x80340000}),
        ("\u0661", "unknown", {"quality": "\u0661"}),
        (0, "good", None),
        (0.0, "good", None),
        (192, "good", None),
        ("GOOD", "good", None),
        (True, "good", None),
    ):
        (reading,) = parse(json.dumps({"metric": "m", "value": 1, "quality": sent})).readings
        assert (reading.quality, reading.extra) == (quality, extra)


number_text = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=9).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})\.[0-9]{1,22}([eE][-+]?[0-9]{1,3})?", fullmatch=True),
).filter(lambda text: "E" not in text or len(text) < 60)
values = st.one_of(
    number_text,
    st.from_regex(r"[-+ ]?\d{1,20}(\.\d{0,20})?([eE]\d)?", fullmatch=True).map(json.dumps),
    st.text(max_size=20).map(json.dumps),
    st.sampled_from(["true", "false", "null", "NaN", "-Infinity", '"NaN"', "[1, 2.50]", '{"a": 9007199254740993}']),
)


def sent_again(reading: Reading) -> Any:
    """Return what was sent, as far as the stored reading tells: text, or the exact number."""
    extra = reading.extra or {}
    if "text" in extra:
        return extra["text"]
    if "raw" in extra:
        return extra["raw"]
    return reading.value


def is_recovered(literal: str, found: Any) -> bool:
    if literal[:1] in "-0123456789" and literal != "-Infinity":
        return found is not None and Decimal(literal) in (
            Decimal(found) if isinstance(found, str) else Decimal(repr(found)),
            Decimal(found),
        )
    sent = json.loads(literal)
    if isinstance(sent, str):
        text = sent.encode("utf-8", "replace").decode().replace("\0", "")
        if isinstance(found, float):
            return text in (repr(found), str(int(found)))
        return bool(found == text)
    if isinstance(sent, float):
        return bool(found == repr(sent))
    if isinstance(sent, (dict, list)):
        return bool(found == sent)
    return found is None if sent is None else bool(found == sent)


@given(st.lists(values, min_size=1, max_size=5), st.integers(0, 7))
@example(["1e-400", "0.0"], 2)
@example(["12345678901234567e-5"], 2)
def test_whatever_is_sent_is_recoverable_or_rejected(literals: list[str], shape: int) -> None:
    """For any JSON value in any shape, the stored reading gives it back, or the reading is counted as rejected."""
    readings = ", ".join(f'{{"metric": "m{n}", "value": {text}}}' for n, text in enumerate(literals))
    document = [
        f"[{readings}]",
        f'{{"readings": [{readings}]}}',
        f'{{"messages": [{{"timestamp": "{T}", "readings": [{readings}]}}]}}',
        f'{{"messages": [{{"readings": [{readings}]}}, 7]}}',
        f'{{"data": {{"readings": [{readings}]}}}}',
        f'{{"tags": [{readings}]}}',
        "\n".join(f'{{"metric": "m{n}", "value": {text}}}' for n, text in enumerate(literals)),
        "\ufeff" + f'{{"readings": [{readings}]}}\0',
    ][shape]
    parsed = parse(document)
    assert len(parsed.readings) + sum(parsed.rejected.values()) == len(literals) + (shape == 3)
    for reading in parsed.readings:
        literal = literals[int(reading.metric[1:])]
        assert reading.value is None or math.isfinite(reading.value)
        assert is_recovered(literal, sent_again(reading)), (literal, reading)


stamps: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", " ", T, "1780228800000", 1780228800, "soon", [], "1970-01-01"]
)
raw_reading = st.fixed_dictionaries(
    {},
    optional={
        "metric": st.sampled_from(["m", "", None, 7, "a\u0308", "x\u202ey"]),
        "value": st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        "timestamp": stamps,
        "time": stamps,
        "protocol": st.sampled_from(["opcua", None, "", 5]),
        "deviceName": st.sampled_from(["plc.1", "", None]),
    },
)
message = st.fixed_dictionaries(
    {"readings": st.lists(raw_reading, max_size=3)}, optional={"timestamp": stamps, "protocol": st.just("x")}
)
envelope = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": stamps,
        "protocol": st.sampled_from(["opcua", None, "", 5]),
        "messages": st.lists(message, max_size=3) | st.none(),
        "readings": st.lists(raw_reading, max_size=3) | st.none(),
        "msgId": st.sampled_from(["i-7", 5, None]),
        "v": st.just(1),
        "p": st.just([]),
        "data": st.just([]),
    },
)


@given(envelope)
def test_the_fast_and_the_slow_way_give_equal_answers(document: dict[str, Any]) -> None:
    """Whatever the fast way accepts, the way for damaged neighbours understands alike."""
    fast = envelopes.parse_envelope(msgspec.convert(document, Envelope), CONTEXT)
    if fast is not None:
        assert envelopes.parse_shape(document, CONTEXT, NO_DICTIONARIES) == fast


@given(st.lists(message, min_size=1, max_size=3), stamps, st.data())
def test_a_bad_neighbour_changes_no_time(messages: list[dict[str, Any]], stamp: Any, data: st.DataObject) -> None:
    """A value that is no reading, anywhere among the readings, changes nothing about the others."""
    clean = parse(json.dumps({"timestamp": stamp, "messages": messages}))
    chosen = data.draw(st.integers(0, len(messages) - 1))
    damaged = json.loads(json.dumps(messages))
    damaged[chosen]["readings"].append(5)
    dirty = parse(json.dumps({"timestamp": stamp, "messages": damaged}))
    assert str(dirty.readings) == str(clean.readings)
    assert dirty.rejected.pop("not_an_object") == 1
    assert dirty.rejected == clean.rejected


def test_a_null_time_of_a_message_is_no_time() -> None:
    """A reading takes the envelope's time if its message has none, with or without a bad neighbour."""
    for stamp in ("null", '""', '"  "'):
        for neighbour in ("", ", 5"):
            document = f'{{"timestamp": "{T}", "messages": [{{"timestamp": {stamp}, "readings": [{{"metric": "m", "value": 1}}{neighbour}]}}]}}'
            (reading,) = parse(document).readings
            assert reading.time == timestamps.parse_us(T)


READING = b'{"metric": "m", "value": 1}'


@pytest.mark.parametrize(
    "payload",
    [
        b"\xef\xbb\xbf" + READING,
        READING + b"\0",
        READING + b" \r\n\0\0",
        b"\0\n " + READING,
        b"\xef\xbb\xbf " + READING + b"\n",
        gzipped(READING),
        gzipped(READING[:9]) + gzipped(READING[9:]),
        gzipped(b"\xef\xbb\xbf" + READING + b"\0"),
        zlib.compress(READING + b"\0"),
        msgspec.msgpack.encode({"metric": "m", "value": 1}) + b"\0",
        msgspec.msgpack.encode({"value": 1, "metric": "m", "trend": 0}) + b"\0\0\0",
        msgspec.msgpack.encode({"value": 1, "metric": "m", "trend": 0.0}) + b"\0",
        gzipped(msgspec.msgpack.encode({"metric": "m", "value": 1})),
    ],
)
def test_marks_blanks_and_gzip_around_a_payload_are_understood(payload: bytes) -> None:
    """A byte order mark, a trailing NUL, blanks, and gzip change nothing about the content."""
    (reading,) = parse(payload).readings
    assert (reading.metric_name, reading.value) == ("m", 1.0)


def test_a_gzip_of_very_many_members_is_refused() -> None:
    """Each member costs time and hardly a byte; a few hundred of them are a file that was appended to."""
    assert len(parse(gzipped(b"") * 500 + gzipped(READING)).readings) == 1
    with pytest.raises(InvalidMessage, match="gzip") as refused:
        parse(gzipped(b"") * 1000 + gzipped(READING))
    assert "members" in refused.value.detail


def test_one_document_a_line() -> None:
    """Lines are parsed one by one; a damaged line is rejected alone, and a cut document is not taken for lines."""
    lines = [b'{"metric": "a", "value": 1, "msgId": "x"}', b'[{"metric": "b", "value": 2}]', b'{"c": 3}']
    for separator in (b"\n", b"\r\n", b"\n\n"):
        assert [r.metric for r in parse(separator.join(lines)).readings] == ["a", "b", "c"]
    parsed = parse(b"\n".join([lines[0], b'{"metric": "cut', lines[2]]))
    assert ([r.metric for r in parsed.readings], parsed.rejected) == (["a", "c"], {"bad_json": 1})
    for cut in (
        b'[\n{"metric": "a", "value": 1}',
        b'[{"metric": "a", "value": 1},\n{"metric": "b", "value": 1}',
        b"{\n",
    ):
        with pytest.raises(InvalidMessage, match="bad_json"):
            parse(cut)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (gzipped(READING)[:-9], "gzip"),
        (gzipped(READING)[:12] + b"\xff" * 20, "gzip"),
        (READING.decode().encode("utf-16"), "utf-16"),
        (READING.decode().encode("utf-16-le"), "utf-16"),
        (READING.decode().encode("utf-32-be"), "utf-32"),
        (b'<?xml version="1.0"?><a/>', "xml"),
        (b"  <reading>5</reading>", "xml"),
        (b"\xa2\x66metric\x61m", "cbor"),
        (b"\x08\xb9\x60\x12\x05hello", "protobuf"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"BZh91AY", "bzip2"),
        (b"eyJtZXRyaWMiOiAibSIsICJ2YWx1ZSI6IDF9", "base64"),
        (b"weather,site=a temp=21.5 1795011512345", "line-protocol"),
        (b"metric=m&value=1", "form"),
        (b"time;value\n1;2\n", "csv"),
        (b"hello", "text"),
        ("k\u00e4lte".encode("latin-1"), "latin-1"),
        (struct.pack(">ddd", 1.5, 2.5, 3.5), "binary"),
        (b'{"metric": "m", "value": ', "bad_json"),
        (b'{"metric": "m", "value": 1}}', "bad_json"),
        (b"\xef\xbb\xbf\0", "empty"),
        (b" \0 ", "empty"),
    ],
)
def test_what_is_not_understood_is_named(payload: bytes, reason: str) -> None:
    """A payload of another format becomes a dead letter with the name of what it looks like."""
    with pytest.raises(InvalidMessage) as raised:
        parse(payload)
    assert raised.value.code == reason


def test_an_object_of_names_and_numbers_is_readings() -> None:
    """What most devices publish: each name is a metric, `timestamp` is the time, and null is no reading."""
    document = f'{{"timestamp": "{T}", "temperature": 21.5, "running": true, "state": "open", "spare": null}}'
    found = {r.metric_name: (r.value, r.extra, r.time) for r in parse(document).readings}
    at = timestamps.parse_us(T)
    assert found == {
        "temperature": (21.5, None, at),
        "running": (1.0, None, at),
        "state": (None, {"text": "open"}, at),
    }
    (reading,) = parse('{"temperature": 21.5}').readings
    assert reading.time == RECEIVED
    for nested in ('[{"a": 1}, {"a": 2, "ts": 1780228800}]', '{"data": [{"a": 1}, {"a": 2}]}'):
        assert [r.value for r in parse(nested).readings] == [1.0, 2.0]
    named = parse('{"deviceName": "boiler.1", "protocol": "ble", "temperature": 21.5}').readings
    assert [(r.metric_name, r.protocol) for r in named] == [("boiler_1.temperature", "ble")]


@pytest.mark.parametrize(
    ("document", "came"),
    [
        ('{"hello": "world"}', "an object with the keys hello"),
        ('{"a": 1, "b": {"c": 2}}', "an object with the keys a, b"),
        ("{}", "an empty object"),
        ("5", "a single value (int)"),
        ("null", "null"),
        ('{"x\\u202e\\u0007y": null}', "an object with the keys xy"),
    ],
)
def test_an_unknown_shape_is_told_with_what_is_expected(document: str, came: str) -> None:
    """The dead letter says what came and what would have been understood, without harmful characters."""
    with pytest.raises(InvalidMessage) as raised:
        parse(document)
    assert raised.value.code == "unknown_shape"
    assert came in raised.value.detail
    assert "{readings: [" in raised.value.detail


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("Ku\u0308hler", "K\u00fchler"),
        ("\u212bngstrom", "\u00c5ngstrom"),
        ("a\u202eb\u2066c", "abc"),
        ("bell\x07\x1b[31m", "bell[31m"),
        ("two\nlines", "two lines"),
        ("\ufeffmark\u200b", "mark"),
        ("  blank ", "blank"),
        ("\u1112\u1161\u11ab", "\ud55c"),
    ],
)
def test_names_are_composed_and_harmless(sent: str, stored: str) -> None:
    """Metric, device and unit are stored in NFC, without control and direction characters."""
    (reading,) = parse(json.dumps({"metric": sent, "deviceName": sent, "unit": sent, "value": 1})).readings
    assert (reading.metric, reading.device_name, reading.unit) == (stored, stored, stored)


@given(st.text(max_size=40))
def test_a_clean_name_is_clean(text: str) -> None:
    """Cleaning twice changes nothing, and what is left can be printed."""
    cleaned = clean_name(text)
    assert clean_name(cleaned) == cleaned
    assert not any(ord(c) < 32 or 0x202A <= ord(c) <= 0x202E for c in cleaned)


@given(st.binary(max_size=80))
def test_the_exact_way_decodes_what_the_fast_way_decodes(payload: bytes) -> None:
    """Any bytes give the same document, or the same refusal, whether numbers are kept exactly or not."""

    def result(*, exact: bool) -> str:
        try:
            return str(codec.decode(payload, False, object, exact=exact))
        except InvalidMessage as exc:
            return exc.code

    assert result(exact=True) == result(exact=False)
