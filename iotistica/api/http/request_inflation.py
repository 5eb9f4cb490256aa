"""Inflates compressed request bodies while they are read, and never more than the route's limit."""

import zlib
from typing import Any, Final

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

CHUNK: Final = 256 << 10  # bytes inflated at a time
WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The `wbits` argument of zlib for each content encoding."""


class Unsupported(HTTPException):
    """The content encoding is not supported."""

    status_code = 415


class RequestInflation(ASGIMiddleware):
    """Middleware that passes on the inflated body, without the headers that describe the compressed one.

    Litestar stops reading at the route's size limit, so a small body that would become huge is not inflated
    further.
    """

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on, with its body inflated if it has a content encoding."""
        headers = MutableScopeHeaders(scope)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("identity", ""):
            await next_app(scope, receive, send)
            return
        if encoding not in WINDOWS:
            raise Unsupported(f"content encoding {encoding[:40]!r}: send it as gzip, deflate or plain")
        del headers["content-encoding"]
        if "content-length" in headers:
            del headers["content-length"]
        await next_app(scope, _Inflating(receive, encoding), send)


class _Inflating:
    def __init__(self, receive: Receive, encoding: str) -> None:
        self._receive = receive
        self._inflator = zlib.decompressobj(WINDOWS[encoding])
        self._rest = b""
        self._is_last = False

    async def __call__(self) -> Any:
        while True:
            if not self._rest and not self._is_last:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._rest, self._is_last = message["body"], not message["more_body"]
            try:
                body = self._inflator.decompress(self._rest, CHUNK)
            except zlib.error as exc:
                raise ClientException("the body is not what its content encoding says") from exc
            self._rest = self._inflator.unconsumed_tail
            if self._inflator.eof or (self._is_last and not self._rest and len(body) < CHUNK):
                if not self._inflator.eof or self._inflator.unused_data:
                    raise ClientException("the compressed body is cut off, or something follows it")
                return {"type": "http.request", "body": body, "more_body": False}
            if body:
                return {"type": "http.request", "body": body, "more_body": True}
