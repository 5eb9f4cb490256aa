"""Compresses responses with brotli or gzip, whichever the client prefers."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import brotli
from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

SMALLEST: Final = 1000  # bytes; a smaller body fits into one packet anyway
THREADED: Final = 64 << 10  # bytes from which a body is compressed in a thread, so that other requests go on
BROTLI_QUALITY: Final = 4  # 120 MB/s on one core, and smaller than gzip's best
GZIP_LEVEL: Final = 6
GZIP: Final = zlib.MAX_WBITS | 16  # the container of gzip
TYPES: Final = (
    "text/",
    "application/json",
    "application/problem+json",
    "application/vnd.oai",
    "application/x-ndjson",
)
"""Media types that shrink; Parquet and Arrow files are compressed in themselves."""
STREAM: Final = "text/event-stream"  # each event must arrive at once


class Compressor(Protocol):
    """What the libraries have in common, once brotli's names are those of zlib."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(quality=BROTLI_QUALITY)

    def compress(self, data: bytes, /) -> bytes:
        compressed: bytes = self._compressor.process(data)
        return compressed

    def flush(self) -> bytes:
        compressed: bytes = self._compressor.finish()
        return compressed


CODINGS: Final[dict[str, Callable[[], Compressor]]] = {
    "br": _Brotli,
    "gzip": lambda: zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP),
}
"""The content codings by their names in HTTP, the better ones first."""


class Compression:
    """An ASGI application that compresses the responses of another application.

    A response with an `ETag` is left as it is: the tag names these very bytes (RFC 9110, section 8.8.3), and
    agents send it back unchanged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and compress what is answered."""
        coding = None
        if scope["type"] == ScopeType.HTTP:
            coding = preferred_coding(Headers.from_scope(scope).get("accept-encoding", ""))
        await self._app(scope, receive, _Sender(send, coding) if coding else send)


class _Sender:
    """Sends a response compressed; the headers are held back until the first part of the body is there."""

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._start: HTTPResponseStartEvent | None = None
        self._compressor: Compressor | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body, more = message["body"], message["more_body"]
        if self._start is not None:
            if shrinks(self._start, len(body), more=more):
                self._compressor = CODINGS[self._coding]()
            body = await self._compressed(body, more)
            headers = MutableScopeHeaders(self._start)
            if self._compressor is not None:
                headers["content-encoding"] = self._coding
                headers.extend_header_value("vary", "Accept-Encoding")
                del headers["content-length"]
                if not more:
                    headers["content-length"] = str(len(body))
            await self._send(self._start)
            self._start = None
        else:
            body = await self._compressed(body, more)
        if body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _compressed(self, body: bytes, more: bool) -> bytes:
        compressor = self._compressor
        if compressor is None:
            return body

        def compress() -> bytes:
            return compressor.compress(body) + (b"" if more else compressor.flush())

        return await asyncio.to_thread(compress) if len(body) >= THREADED else compress()


def preferred_coding(accepted: str) -> str | None:
    """Return the coding of `CODINGS` that an `Accept-Encoding` header prefers (RFC 9110, section 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    return max(
        (coding for coding in CODINGS if weights.get(coding, weights.get("*", 0.0)) > 0),
        key=lambda coding: weights.get(coding, weights.get("*", 0.0)),
        default=None,
    )


def _weight(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def shrinks(start: HTTPResponseStartEvent, size: int, *, more: bool) -> bool:
    """Whether a response is to be compressed; `size` is that of its first part, in bytes."""
    headers: Any = MutableScopeHeaders(start)
    media = headers.get("content-type", "").partition(";")[0].strip()
    return (
        (more or size >= SMALLEST)
        and media.startswith(TYPES)
        and media != STREAM
        and "content-encoding" not in headers
        and "etag" not in headers
    )
