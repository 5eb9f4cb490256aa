"""HEAD requests: the status and the headers of a GET request, without its body (RFC 9110, section 9.3.2)."""

from typing import cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """An ASGI application that answers HEAD with the GET route of another application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, a HEAD request as GET."""
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            """End the response after its headers; the server then also ends an endless stream."""
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(cast("Scope", {**scope, "method": "GET"}), receive, send_headers)
