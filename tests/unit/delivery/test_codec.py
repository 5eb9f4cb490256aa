"""Decoding of payloads, whose encoding is detected from their first bytes."""

import json
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain import codec
from iotistica.errors import InvalidMessage

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: isinstance(value, (dict, list)))


def decoded(payload: bytes) -> Any:
    return codec.decode(*codec.unwrap(payload), object)


@given(documents)
def test_all_four_encodings_say_the_same(document: Any) -> None:
    """An agent can use any encoding for any message, so each message is detected on its own."""
    text, packed = json.dumps(document).encode(), msgspec.msgpack.encode(document)
    finite = json.loads(text)
    for payload in (text, packed, zlib.compress(text), zlib.compress(packed, 1)):
        assert decoded(payload) == (finite if payload[:1] in b"{[" else document)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_be_refused(payload: bytes) -> None:
    """Bytes that cannot be decoded raise `InvalidMessage` with a reason, and no other error."""
    for attempt in (payload, zlib.compress(payload), b"\x78\x9c" + payload):
        try:
            decoded(attempt)
        except InvalidMessage as exc:
            assert exc.code


@given(documents, st.data())
def test_a_cut_payload_is_refused(document: Any, data: st.DataObject) -> None:
    """A truncated deflate stream is never decoded as if it were complete."""
    payload = zlib.compress(json.dumps(document).encode())
    cut = data.draw(st.integers(2, len(payload) - 1))
    with pytest.raises(InvalidMessage, match=r"truncated_deflate|bad_deflate"):
        decoded(payload[:cut])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (zlib.compress(b""), "empty"),
        (zlib.compress(zlib.compress(b"{}")), "nested_wrapper"),
        (b"[" * 200_000, "too_deep"),
        (b"\x91" * 200_000, "too_deep"),
        (b"\xdd\xff\xff\xff\xff", "bad_msgpack"),
        (b"\x93\x01", "bad_msgpack"),
        (b"nonsense", "text"),
    ],
)
def test_reasons(payload: bytes, reason: str) -> None:
    """Each kind of damage has its own stable reason code."""
    with pytest.raises(InvalidMessage) as caught:
        decoded(payload)
    assert caught.value.code == reason


def test_a_bomb_is_stopped_at_the_cap() -> None:
    """A 200 kB payload that would inflate to 200 MB is refused before it is inflated completely."""
    with pytest.raises(InvalidMessage, match="too_large"):
        codec.unwrap(zlib.compress(b" " * (200 << 20)))


def test_python_s_way_of_writing_numbers_is_understood() -> None:
    """NaN and infinities are not valid JSON, but some agents send them."""
    assert decoded(b'{"a": ' + b"9" * 5000 + b"}") == {"a": float("inf")}
    assert str(decoded(b'{"a": [NaN, Infinity, -Infinity, 1e999], "b": "\xff"}')) == str(
        {"a": [float("nan"), float("inf"), float("-inf"), float("inf")], "b": "\ufffd"}
    )
