"""The same by WebSocket, in the words of older dashboards: `/ws?token=…&deviceUuid=…`."""

import asyncio
import time
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
"""What they call it, and what it is."""
NAMES: Final = {kind: name for name, kind in CHANNELS.items()}
MESSAGES: Final = 1000  # that a client may send a minute
CLOSE_CODES: Final[dict[type[IotisticaError], int]] = {
    Unauthorized: 4401,
    Forbidden: 4403,
    NotFound: 4404,
    Invalid: 4400,
    TooMany: 4429,
}
"""Why a connection is closed: as the status of an answer, and 4000."""
CLOSE_RESTART: Final = 1012  # begin anew

Socket = WebSocket[Any, Any, Any]


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends."""

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
    """Follow one agent, or all without `deviceUuid`; `{type: subscribe | unsubscribe | ping, channel}` chooses.

    The token comes as a header, or in the query, since browsers send no headers here.
    """
    await socket.accept()
    try:
        who = await _identify(socket, authenticator, rate_limiter, context)
        live.check_kinds(who, ["state"])
        with live_hub.listen(who.tenant, who.id) as listener:
            await _serve(socket, database, live_hub, authenticator, listener, who)
        await socket.close(CLOSE_RESTART, (listener.ended or "")[:100])
    except WebSocketDisconnect:
        return
    except IotisticaError as exc:
        code = next((code for kind, code in CLOSE_CODES.items() if isinstance(exc, kind)), CLOSE_RESTART)
        await socket.close(code, str(exc)[:100])


async def _identify(
    socket: Socket, authenticator: Authenticator, rate_limiter: RateLimiter, context: ServerContext
) -> Principal:
    """Who it is; wrong credentials count against the address, as they do everywhere."""
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
    who: Principal,
) -> None:
    """Both ways, until one of them ends."""
    uuid = socket.query_params.get("deviceUuid")
    listener.agents = live.agents_of(uuid, ()) if uuid else None
    await live_hub.wait_until_subscribed(listener)
    await _send(socket, "snapshot", await live.snapshot(database, who.tenant, listener.agents, ["state"]))

    async def may_still() -> None:
        who = await authenticator.authenticate(_headers(socket), address_of(socket), fresh=True)
        live.check_kinds(who, listener.kinds | {"state"})

    both = _hear(socket, live_hub, listener, who), _tell(socket, listener, may_still)
    ways = {asyncio.create_task(way) for way in both}
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    for way in done:
        way.result()


async def _tell(socket: Socket, listener: Listener, may_still: Any) -> None:
    async for told in live.follow(listener, may_still):
        for one in told:
            await _send(socket, NAMES[one.kind], msgspec.Raw(one.content))


async def _hear(socket: Socket, live_hub: LiveHub, listener: Listener, who: Principal) -> None:
    began, heard = time.monotonic(), 0
    while True:
        text = await socket.receive_text()
        if time.monotonic() - began > 60:
            began, heard = time.monotonic(), 0
        heard += 1
        if heard > MESSAGES:
            raise TooMany(f"more than {MESSAGES} messages a minute", seconds=60)
        try:
            wish = msgspec.json.decode(text, type=ClientMessage)
            await _grant(socket, live_hub, listener, who, wish)
        except (msgspec.MsgspecError, Invalid, Forbidden) as exc:
            await _send(socket, "error", {"message": str(exc)})


async def _grant(
    socket: Socket, live_hub: LiveHub, listener: Listener, who: Principal, wish: ClientMessage
) -> None:
    if wish.type == "ping":
        await _send(socket, "pong", {})
        return
    kind = CHANNELS.get(wish.channel)
    if wish.type not in ("subscribe", "unsubscribe") or kind is None:
        raise Invalid(f"ping, or subscribe and unsubscribe with a channel of {', '.join(CHANNELS)}")
    if wish.type == "unsubscribe":
        listener.kinds -= {kind}
    else:
        live.check_kinds(who, [kind])
        live.check_named(listener.agents, [kind])
        listener.kinds |= {kind}
        await live_hub.wait_until_subscribed(listener)
    await _send(socket, f"{wish.type}d", {"channel": wish.channel})


async def _send(socket: Socket, name: str, data: Any) -> None:
    await socket.send_text(msgspec.json.encode({"type": name, "data": data}).decode())
