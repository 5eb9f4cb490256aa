"""Limits the number of concurrent requests; further requests are answered 503 with `Retry-After`."""

from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

REQUESTS_LIMIT: Final = 2000  # concurrent requests, including live streams
BODY: Final = (
    b'{"type": "about:blank", "title": "Not available now", "status": 503,'
    b' "detail": "too many requests at once", "error": "too many requests at once"}'
)
HEADERS: Final = [
    (b"content-type", b"application/problem+json"),
    (b"content-length", str(len(BODY)).encode()),
    (b"retry-after", b"2"),
]


class ConcurrencyLimit:
    """An ASGI application that limits the concurrent requests to another application.

    It counts requests, not connections: ten thousand agents that keep connections open between polls are no load.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] == "lifespan":  # type: ignore[comparison-overlap]  # the type lacks it
            await self._app(scope, receive, send)
            return
        if self._active >= REQUESTS_LIMIT:
            await _refuse(scope, send)
            return
        self._active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._active -= 1


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1013, "reason": "too many requests at once"})
        return
    await send({"type": "http.response.start", "status": 503, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})
