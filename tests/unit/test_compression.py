"""Which responses are compressed, how, and that their bytes survive it."""

import gzip
from typing import Any

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.types import Message, Receive, Scope, Send

from iotistica.api.http import compression
from iotistica.api.http.compression import Compression, preferred_coding

DECODERS = {"br": brotli.decompress, "gzip": gzip.decompress, "": bytes}
JSON = [(b"content-type", b"application/json")]


async def answered(
    parts: list[bytes], headers: list[tuple[bytes, bytes]], accepted: str = "gzip, deflate, br"
) -> tuple[dict[str, str], list[bytes]]:
    """The headers and the parts of a body as a client gets them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        for at, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": at < len(parts) - 1})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing to receive")

    scope: Any = {"type": "http", "headers": [(b"accept-encoding", accepted.encode())]}
    await Compression(app)(scope, receive, send)
    start: Any
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return found, [body["body"] for body in bodies]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, br, zstd", "br"),
        ("br;q=0.5, gzip;q=1.0", "gzip"),
        ("br;q=0, gzip;q=0", None),
        ("*", "br"),
        ("br;q=0, *", "gzip"),
        ("GZIP ; Q=0.3", "gzip"),
        ("gzip;q=nonsense", None),
    ],
)
def test_the_client_chooses_the_coding(accepted: str, expected: str | None) -> None:
    """By weight, and the better one if it does not mind."""
    assert preferred_coding(accepted) == expected


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=6), st.sampled_from(["br", "gzip", ""]))
async def test_whatever_is_sent_arrives(parts: list[bytes], accepted: str) -> None:
    """In one part or many, compressed or not, with a length only where it is that of the bytes."""
    headers, bodies = await answered(parts, JSON, accepted)
    body = b"".join(bodies)
    assert DECODERS[headers.get("content-encoding", "")](body) == b"".join(parts)
    if "content-length" in headers:
        assert int(headers["content-length"]) == len(body)


async def test_a_large_body_is_compressed_in_a_thread() -> None:
    """And is the same as a small one afterwards; caches are told that it depends on the request."""
    body = b'{"value": 1.5}' * compression.THREADED
    headers, bodies = await answered([body], [*JSON, (b"content-length", str(len(body)).encode())])
    assert brotli.decompress(bodies[0]) == body
    assert int(headers["content-length"]) == len(bodies[0]) < len(body) / 100
    assert headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"text/event-stream")],
        [(b"content-type", b"application/vnd.apache.parquet")],
        [*JSON, (b"etag", b'"abc"')],
        [*JSON, (b"content-encoding", b"br")],
        [],
    ],
)
async def test_some_bodies_are_sent_as_they_are(headers: list[tuple[bytes, bytes]]) -> None:
    """Events, which must not wait; files that are compressed in themselves; and what an ETag names byte by byte."""
    body = b"x" * 5000
    found, bodies = await answered([body], headers)
    assert bodies == [body]
    assert "vary" not in found


async def test_a_small_body_is_sent_as_it_is() -> None:
    """It would fit into one packet anyway."""
    found, bodies = await answered([b'{"a": 1}'], JSON)
    assert (found.get("content-encoding"), bodies) == (None, [b'{"a": 1}'])
