"""The route for live updates of agents by server-sent events, which begin with a snapshot of the agents."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Annotated, Any, Final, cast
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from iotistica.api.http.authentication import Principal
from iotistica.api.http.dependencies import ApiRequest, AuthenticatorDep, DatabaseDep, LiveHubDep, OverviewsDep
from iotistica.api.http.guard import address_of
from iotistica.domain.access import document_secrets
from iotistica.domain.access.permissions import is_allowed
from iotistica.domain.ids import TenantId
from iotistica.errors import Forbidden, Invalid, IotisticaError, NotFound, Unauthorized
from iotistica.storage.agents import agent_search, reported_states
from iotistica.storage.agents.agent_search import AgentFilter
from iotistica.storage.delivery.live import KINDS, ON_DEMAND_KINDS, LiveKind
from iotistica.storage.delivery.live_hub import NOTHING, Listener, LiveMessage, Selection
from iotistica.storage.postgres import Database, Tx

LISTED_LIMIT: Final = 100  # agents that a client can list
SNAPSHOT_LIMIT: Final = 1000  # agents in a snapshot of all agents
OVERVIEW_SECONDS: Final = 2.0  # seconds between two overviews
HEARTBEAT: Final = 15.0  # seconds without an event until a comment keeps the connection open
PERMISSION_CHECK_SECONDS: Final = 10.0  # seconds between checks that the caller still has its permissions
PERMISSION_OF_KIND: Final[dict[LiveKind, str]] = {
    "state": "agents.read",
    "metrics": "readings.read",
    "readings": "readings.read",
    "logs": "logs.read",
    "events": "agents.read",
}

Agents = Annotated[str, QueryParameter(min_length=1, max_length=LISTED_LIMIT * 40)]
Kinds = Annotated[str, QueryParameter(max_length=100)]


@get("/live", opt={"permission": "agents.read"}, tags=["live"], media_type="text/event-stream")
async def live(
    request: ApiRequest,
    database: DatabaseDep,
    live_hub: LiveHubDep,
    authenticator: AuthenticatorDep,
    overviews: OverviewsDep,
    agents: Agents,
    kinds: Kinds = "state,metrics,events",
    details: Annotated[str | None, QueryParameter(max_length=LISTED_LIMIT * 40)] = None,
    detail_kinds: Annotated[str, QueryParameter(name="detailKinds", max_length=100)] = ",".join(KINDS),
    overview: FromQuery[bool] = False,
) -> Stream:
    """Stream what happens to agents: first a `snapshot` event, then events that are named after their `kinds`.

    `agents` is a comma-separated list of UUIDs, or `all`; readings and logs are sent only for listed agents.
    `details` lists agents of which `detailKinds` are sent, too; the snapshot is then of these alone. With
    `overview`, an `overview` event comes at once and while something changes every two seconds, with what
    `GET /overview` returns. The last event is `end` with its reason: connect again then.
    """
    principal, wanted = request.auth, kinds_of(kinds)
    chosen = agents_of(agents, wanted)
    detailed = selection_of(details, detail_kinds) if details else NOTHING
    check_kinds(principal, wanted | detailed.kinds)
    live_hub.check_limits(principal.tenant, principal.id)
    shown, shown_kinds = detailed if details else (chosen, wanted)
    if overview and not details:
        shown = frozenset()  # all agents would be a long list, which the overview stands for
    # Read once before the stream begins, so that an unknown agent is answered 404.
    await snapshot(database, principal.tenant, shown, shown_kinds)
    address, headers = address_of(request), dict(request.headers)

    async def check_permissions() -> None:
        check_kinds(await authenticator.authenticate(headers, address, fresh=True), wanted | detailed.kinds)

    async def events() -> AsyncIterator[bytes]:
        try:
            with live_hub.listen(principal.tenant, principal.id) as listener:
                listener.agents, listener.kinds, listener.details = chosen, wanted, detailed
                await live_hub.wait_until_subscribed(listener)
                first = await snapshot(database, principal.tenant, shown, shown_kinds)
                yield b"retry: 2000\n" + _event("snapshot", msgspec.json.encode(first))
                beat = OVERVIEW_SECONDS if overview else HEARTBEAT
                known = b""
                if overview:
                    known = await overviews.encoded(database, principal.tenant)
                    yield _event("overview", known)
                async for messages in follow(listener, check_permissions, beat):
                    sent = b"".join(_event(message.kind, message.content) for message in messages)
                    if overview and (news := await overviews.encoded(database, principal.tenant)) != known:
                        known = news
                        sent += _event("overview", news)
                    yield sent or b": still here\n\n"
                reason = listener.ended
        except IotisticaError as exc:
            reason = str(exc)
        yield _event("end", msgspec.json.encode({"reason": reason}))

    headers_ = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(events(), media_type="text/event-stream", headers=headers_)


async def follow(
    listener: Listener, check_permissions: Callable[[], Awaitable[None]], beat: float = HEARTBEAT
) -> AsyncIterator[list[LiveMessage]]:
    """Yield arrived messages, or an empty list after `beat` seconds without any, until the listener ends."""
    clock = asyncio.get_running_loop().time
    checked_at = sent_at = clock()
    while not listener.ended:
        messages = await listener.take(min(PERMISSION_CHECK_SECONDS, beat))
        if clock() - checked_at >= PERMISSION_CHECK_SECONDS:
            checked_at = clock()
            try:
                await check_permissions()
            except (Unauthorized, Forbidden) as exc:
                listener.end(str(exc))
                return
            except IotisticaError:
                pass  # a service is unavailable: check again next time
        if messages or clock() - sent_at >= beat:
            sent_at = clock()
            yield messages


def selection_of(details: str, kinds: str) -> Selection:
    """Parse the agents and kinds of `details` and `detailKinds`; raises `Invalid`."""
    wanted = kinds_of(kinds, "detailKinds")
    return Selection(agents_of(details, wanted), wanted)


def kinds_of(text: str, path: str = "kinds") -> frozenset[LiveKind]:
    """Parse a comma-separated list of kinds; raises `Invalid`."""
    words = {word.strip() for word in text.split(",") if word.strip()}
    if not words or words - {*KINDS}:
        raise Invalid(f"must be a comma-separated list of {', '.join(KINDS)}", path)
    return frozenset(cast(set[LiveKind], words))


def agents_of(text: str, kinds: Collection[LiveKind]) -> frozenset[UUID] | None:
    """Parse a comma-separated list of agents, or `all` as None; raises `Invalid`."""
    if text == "all":
        check_listed(None, kinds)
        return None
    try:
        uuids = frozenset(UUID(word.strip()) for word in text.split(","))
    except ValueError:
        raise Invalid("must be a comma-separated list of UUIDs, or all", "agents") from None
    if len(uuids) > LISTED_LIMIT:
        raise Invalid(f"must be at most {LISTED_LIMIT} UUIDs", "agents")
    return uuids


def check_listed(agents: frozenset[UUID] | None, kinds: Collection[LiveKind]) -> None:
    """Raise `Invalid` if all agents are followed and a kind is published only for listed agents."""
    if agents is None and {*kinds} & {*ON_DEMAND_KINDS}:
        raise Invalid(f"must list at most {LISTED_LIMIT} agents for readings and logs", "agents")


def check_kinds(who: Principal, kinds: Collection[LiveKind]) -> None:
    """Raise `Forbidden` if the principal may not see one of these kinds."""
    for kind in sorted(kinds):
        if who.kind == "agent" or not is_allowed(PERMISSION_OF_KIND[kind], who.role, who.scopes):
            raise Forbidden(f"The kind {kind} needs the permission {PERMISSION_OF_KIND[kind]}.")


async def snapshot(
    database: Database, tenant: TenantId, agents: frozenset[UUID] | None, kinds: Collection[LiveKind]
) -> dict[str, Any]:
    """Return the current status of agents; raises `NotFound`."""
    async with database.transaction(tenant, snapshot=True) as tx:
        if agents is None:
            found = await agent_search.page(tx, tenant, AgentFilter(), limit=SNAPSHOT_LIMIT + 1)
            return {
                "agents": [_summary_of(agent) for agent in found[:SNAPSHOT_LIMIT]],
                "more": len(found) > SNAPSHOT_LIMIT,
            }
        return {"agents": [await _snapshot_of(tx, tenant, agent, kinds) for agent in sorted(agents)], "more": False}


async def _snapshot_of(tx: Tx, tenant: TenantId, agent: UUID, kinds: Collection[LiveKind]) -> dict[str, Any]:
    summary = await agent_search.get(tx, tenant, agent)
    if summary is None:
        raise NotFound
    if not {"state", "metrics"} & {*kinds}:
        return _summary_of(summary)
    row = await reported_states.get(tx, tenant, agent)
    return _summary_of(summary) | {"state": document_secrets.mask(row.merged.values) if row else {}}


def _summary_of(agent: agent_search.AgentSummary) -> dict[str, Any]:
    return {
        "agentUuid": agent.agent_uuid,
        "name": agent.name,
        "status": agent.status or "new",
        "since": agent.since,
        "lastSeen": agent.last_seen,
    }


def _event(name: str, content: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), content)
