"""Log lines, in every shape that they come in."""

import gzip
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.agents import log_lines
from iotistica.domain.agents.log_levels import LEVELS, level_of
from iotistica.domain.agents.log_lines import LogBatch, LogLine
from iotistica.errors import InvalidMessage

NOW = 1_790_000_000_000_000
AGENT_LINE = {
    "timestamp": NOW // 1000 - 5,
    "level": "warn",
    "message": "poll failed",
    "source": {"type": "system", "name": "agent"},
    "isSystem": True,
    "deviceId": "550e8400-e29b-41d4-a716-446655440000",
    "context": {"component": "StatePoller"},
}


def gzipped(document: bytes) -> bytes:
    """Without a time stamp, since parameters name their tests."""
    return gzip.compress(document, mtime=0)


def read(document: Any, **options: Any) -> LogBatch:
    payload = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return log_lines.parse_lines(payload, NOW, **options)


def test_a_line_of_the_public_agent() -> None:
    """Its service is the source's name, what is beside the message is kept."""
    (line,) = read(AGENT_LINE).lines
    wanted = LogLine(
        time=NOW - 5000,
        service="agent",
        level=LEVELS.index("warn"),
        message="poll failed",
        is_system=True,
        meta={"component": "StatePoller"},
    )
    assert line == wanted
    container = AGENT_LINE | {"serviceName": "web", "containerId": "ab12", "isStdErr": True, "isSystem": False}
    (line,) = read(container).lines
    assert (line.service, line.is_stderr, line.meta) == (
        "web",
        True,
        {"containerId": "ab12", "component": "StatePoller"},
    )


@pytest.mark.parametrize(
    "payload",
    [
        b'{"message":"a"}\n{"message":"b"}\n',
        b'[{"message":"a"},{"msg":"b"}]',
        b'{"logs":[{"message":"a"},{"message":"b"}]}',
        b'{"batchId":"x","lines":["a","b"]}',
        b"a\nb\n",
        b'{"message":"a"}\nb',
        msgspec.msgpack.encode([{"message": "a"}, {"message": "b"}]),
    ],
)
def test_every_shape_gives_the_same_lines(payload: bytes) -> None:
    """JSON lines, arrays, wrapped, plain text, MessagePack; a line that is no JSON is text."""
    assert [line.message for line in read(payload).lines] == ["a", "b"]


def test_what_is_no_line_is_counted_and_harms_no_other() -> None:
    """Empty messages, other types, and lines older than what is kept."""
    old = {"message": "old", "timestamp": "2020-01-01"}
    batch = read([{"message": ""}, 7, None, old, {"level": "info"}, {"message": "good"}])
    assert ([line.message for line in batch.lines], batch.dropped) == (["good"], 5)
    odd = read([{"message": {"a": 1}, "timestamp": "2999-01-01", "level": "CRITICAL", "isSystem": "yes"}])
    (line,) = odd.lines
    assert (line.message, line.time, line.level, line.is_system) == ('{"a":1}', NOW, 5, False)


@pytest.mark.parametrize(
    ("payload", "messages"),
    [
        (b'[{"message":"ok"},{"message":"cut \\ud83d"}]', ["ok", "cut \ufffd"]),
        (b'[{"message":"ok"},{"message":"k\xe4lte"}]', ["ok", "k\ufffdlte"]),
        (b'[{"message":"ok","n":NaN},{"message":"b"}]', ["ok", "b"]),
        (b'\xef\xbb\xbf[{"message":"ok"}]', ["ok"]),
        (b'\xef\xbb\xbf{"message":"a"}\r\n{"message":"b"}\0', ["a", "b"]),
        (b'{"message":"a"}\n{"message":"cut \\ude00"}\n{"message": \n{"message":"d"}', None),
        (b'{"message":"a"}\n{"message":"k\xe4lte"}\n{"message":"d"}', ["a", "k\ufffdlte", "d"]),
        (b'{"logs":[{"message":"a","level":Infinity},{"message":"\xff"}]}', ["a", "\ufffd"]),
        (gzipped(b'[{"message":"ok"}]'), ["ok"]),
        (b"plain \xe4\nlines", ["plain \ufffd", "lines"]),
        (b"[INFO] started", ["[INFO] started"]),
        (b"[2026-01-02 10:00:00] x", ["[2026-01-02 10:00:00] x"]),
        (b"{main} x", ["{main} x"]),
        (msgspec.msgpack.encode({"message": {(1, 2): 3}}), ['{"(1, 2)":3}']),
    ],
)
def test_one_bad_character_loses_no_line(payload: bytes, messages: list[str] | None) -> None:
    """It becomes U+FFFD; a line that is no JSON among lines that are is kept as text."""
    messages = messages or ["a", "cut \ufffd", '{"message": ', "d"]
    assert [line.message for line in read(payload).lines] == messages


@pytest.mark.parametrize(
    ("sent", "level"),
    [
        *((number * 10, number - 1) for number in range(1, 7)),
        *enumerate((5, 5, 5, 4, 3, 2, 2, 1)),
        (50.0, 4),
        (35, 2),
        (99, 5),
        (9, 2),
        (-1, 2),
        ("50", 4),
        ("30.0", 2),
        ("-1", 2),
        (" 3 ", 4),
        ("WARN ", 3),
        ("[ERROR]", 4),
        ("Err", 4),
        ("error:", 4),
        ("E", 4),
        ("SEVERE", 4),
        ("Warning", 3),
        ("WRN", 3),
        ("Critical", 5),
        ("emergency", 5),
        ("DBG", 1),
        ("Verbose", 0),
        ("errors", 4),
        ("strange", 2),
        ("\u0663", 2),
        (True, 2),
        (math.nan, 2),
        (None, 2),
        ([], 2),
    ],
)
def test_levels_are_understood_as_numbers_and_words(sent: Any, level: int) -> None:
    """Numbers of pino and syslog, and words with blanks, brackets and other spellings."""
    assert level_of(sent) == level


def test_the_level_is_found_under_other_names() -> None:
    """`severity`, `lvl` and others count where `level` is absent, and are not kept as details."""
    for field in ("severity", "lvl", "levelname", "log.level", "PRIORITY"):
        (line,) = read({"message": "m", field: "3"}).lines
        assert (line.level, line.meta) == (4, None)


@pytest.mark.parametrize(
    "payload", [b"[1,2,3]", b'{"message": "a"', b"[" * 100_000, b'["' + b'a","' * 20_000 + b'"]']
)
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    """With a reason, and without taking a long time."""
    with pytest.raises(InvalidMessage):
        read(payload)


def test_a_line_is_bounded() -> None:
    """Its message, its service, and what is beside it."""
    (line,) = read({"message": "é" * 40_000, "serviceName": "s" * 1000, "meta": {"x": "y" * 9000}}).lines
    assert len(line.message.encode()) < log_lines.MESSAGE + 40
    assert line.message.endswith("(80000 bytes)")
    assert (len(line.service), line.meta) == (log_lines.SERVICE, {"dropped": "more than 8192 bytes"})


LINES = st.builds(
    LogLine,
    time=st.integers(min_value=NOW - 10**12, max_value=NOW),
    service=st.sampled_from(["agent", "web", "ünïcode"]),
    level=st.integers(min_value=0, max_value=5),
    message=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
        str.strip
    ),
    is_system=st.booleans(),
    is_stderr=st.booleans(),
    meta=st.none() | st.dictionaries(st.sampled_from(["component", "n"]), st.integers(0, 9), min_size=1),
)


@given(st.lists(LINES, max_size=20), st.none() | st.just("a-batch"))
def test_what_is_handed_on_is_what_was_read(lines: list[LogLine], id_: str | None) -> None:
    """In as many messages as it takes, each with an id of its own, so that each is stored once."""
    found = [
        log_lines.parse_lines(message, NOW) for message in log_lines.encode(LogBatch(lines=lines, id=id_), cap=400)
    ]
    assert [line for batch in found for line in batch.lines] == lines
    ids = [batch.id for batch in found]
    assert ids == (
        [None] * len(ids) if id_ is None else ["a-batch", *(f"a-batch#{n}" for n in range(1, len(ids)))][: len(ids)]
    )


@pytest.mark.parametrize("line", [b"\n{", b"\n", b"\nx"])
def test_lines_are_counted_before_they_are_split(line: bytes) -> None:
    """A kilobyte of deflate may hold millions of them."""
    with pytest.raises(InvalidMessage, match="lines"):
        log_lines.parse_lines(b"x" + line * 2_000_000 + b"x", NOW)


def test_what_is_beside_a_line_is_counted_before_it_is_looked_at() -> None:
    """Two bytes a value, and half a kilobyte of deflate for thousands of them."""
    (line,) = log_lines.parse_lines(b'{"message":"x","a":[' + b"0," * 10_000 + b"0]}", NOW).lines
    assert line.meta == {"dropped": "more than 8192 bytes"}
    with pytest.raises(InvalidMessage, match="values"):
        log_lines.parse_lines(b'{"message":"x","a":[' + b"0," * 1_000_000 + b"0]}", NOW)
