"""Live updates by WebSocket, with the message names of older dashboards: `/ws?token=…&deviceUuid=…`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from iotistica.api.delivery import live
from iotistica.api.http.authentication import Authenticator, NoCredential, Principal
from iotistica.api.http.dependencies import (
    AuthenticatorDep,
    DatabaseDep,
    LiveHubDep,
    RateLimiterDep,
    ServerContext,
    ServerContextDep,
)
from iotistica.api.http.guard import address_of, source_of, wrong_credentials_limit
from iotistica.domain.access.permissions import PUBLIC
from iotistica.errors import Forbidden, Invalid, IotisticaError, NotFound, TooMany, Unauthorized
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.delivery.live import LiveKind
from iotistica.storage.delivery.live_hub import Listener, LiveHub
from iotistica.storage.postgres import Database

CHANNELS: Final[dict[str, LiveKind]] = {
    "system-info": "metrics",
    "state": "state",
    "readings": "readings",
    "logs": "logs",
    "events": "events",
}
"""The channel names of older dashboards, and the kinds that they stand for."""
NAMES: Final = {kind: name for name, kind in CHANNELS.items()}
MESSAGES: Final = 1000  # messages that a client can send per minute
CLOSE_CODES: Final[dict[type[IotisticaError], int]] = {
    Unauthorized: 4401,
    Forbidden: 4403,
    NotFound: 4404,
    Invalid: 4400,
    TooMany: 4429,
}
"""Why a connection is closed: 4000 plus the HTTP status of the error."""
CLOSE_RESTART: Final = 1012  # the client should connect again

Socket = WebSocket[Any, Any, Any]


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message from a client."""

    type: str
    channel: str = ""


@websocket("/ws", opt={"permission": PUBLIC})
async def sockets(
    socket: Socket,
    database: DatabaseDep,
    live_hub: LiveHubDep,
    authenticator: AuthenticatorDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> None:
    """Stream what happens to one agent, or to all agents without `deviceUuid`.

    The client chooses channels by `{type: subscribe | unsubscribe | ping, channel}`. The token comes in a header or
    in the query, because browsers cannot set headers on a WebSocket.
    """
    await socket.accept()
    try:
        principal = await _identify(socket, authenticator, rate_limiter, context)
        live.check_kinds(principal, ["state"])
        with live_hub.listen(principal.tenant, principal.id) as listener:
            await _serve(socket, database, live_hub, authenticator, listener, principal)
        await socket.close(CLOSE_RESTART, (listener.ended or "")[:100])
    except WebSocketDisconnect:
        return
    except IotisticaError as exc:
        code = next((code for kind, code in CLOSE_CODES.items() if isinstance(exc, kind)), CLOSE_RESTART)
        await socket.close(code, str(exc)[:100])


async def _identify(
    socket: Socket, authenticator: Authenticator, rate_limiter: RateLimiter, context: ServerContext
) -> Principal:
    """Return the authenticated client; wrong credentials count against its address, as on every route."""
    try:
        return await authenticator.authenticate(_headers(socket), address_of(socket))
    except Unauthorized as exc:
        if not isinstance(exc, NoCredential):
            await rate_limiter.hit(wrong_credentials_limit(context.settings), source_of(socket))
        raise


def _headers(socket: Socket) -> dict[str, str]:
    token = socket.query_params.get("token")
    return dict(socket.headers) | ({"authorization": f"Bearer {token}"} if token else {})


async def _serve(
    socket: Socket,
    database: Database,
    live_hub: LiveHub,
    authenticator: Authenticator,
    listener: Listener,
    principal: Principal,
) -> None:
    """Receive and send messages until either direction ends."""
    uuid = socket.query_params.get("deviceUuid")
    listener.agents = live.agents_of(uuid, ()) if uuid else None
    await live_hub.wait_until_subscribed(listener)
    await _send(socket, "snapshot", await live.snapshot(database, principal.tenant, listener.agents, ["state"]))

    async def check_permissions() -> None:
        principal = await authenticator.authenticate(_headers(socket), address_of(socket), fresh=True)
        live.check_kinds(principal, listener.kinds | {"state"})

    directions = (
        _receive_messages(socket, live_hub, listener, principal),
        _send_updates(socket, listener, check_permissions),
    )
    tasks = {asyncio.create_task(direction) for direction in directions}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _send_updates(
    socket: Socket, listener: Listener, check_permissions: Callable[[], Awaitable[None]]
) -> None:
    async for messages in live.follow(listener, check_permissions):
        for message in messages:
            await _send(socket, NAMES[message.kind], msgspec.Raw(message.content))


async def _receive_messages(socket: Socket, live_hub: LiveHub, listener: Listener, principal: Principal) -> None:
    started, count = time.monotonic(), 0
    while True:
        text = await socket.receive_text()
        if time.monotonic() - started > 60:
            started, count = time.monotonic(), 0
        count += 1
        if count > MESSAGES:
            raise TooMany(f"The client sent more than {MESSAGES} messages in a minute.", seconds=60)
        try:
            message = msgspec.json.decode(text, type=ClientMessage)
            await _handle(socket, live_hub, listener, principal, message)
        except (msgspec.MsgspecError, Invalid, Forbidden) as exc:
            await _send(socket, "error", {"message": str(exc)})


async def _handle(
    socket: Socket, live_hub: LiveHub, listener: Listener, principal: Principal, message: ClientMessage
) -> None:
    if message.type == "ping":
        await _send(socket, "pong", {})
        return
    kind = CHANNELS.get(message.channel)
    if message.type not in ("subscribe", "unsubscribe") or kind is None:
        raise Invalid(f"Send ping, or subscribe or unsubscribe with one of the channels {', '.join(CHANNELS)}.")
    if message.type == "unsubscribe":
        listener.kinds -= {kind}
    else:
        live.check_kinds(principal, [kind])
        live.check_listed(listener.agents, [kind])
        listener.kinds |= {kind}
        await live_hub.wait_until_subscribed(listener)
    await _send(socket, f"{message.type}d", {"channel": message.channel})


async def _send(socket: Socket, name: str, data: Any) -> None:
    await socket.send_text(msgspec.json.encode({"type": name, "data": data}).decode())
