"""What happens now: server-sent events for the agents that one chooses, beginning with how they are."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Annotated, Any, Final, cast
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import QueryParameter
from litestar.response import Stream

from iotistica.api.http.authentication import Principal
from iotistica.api.http.dependencies import ApiRequest, AuthenticatorDep, DatabaseDep, LiveHubDep
from iotistica.api.http.guard import address_of
from iotistica.domain.access import document_secrets
from iotistica.domain.access.permissions import is_allowed
from iotistica.domain.ids import TenantId
from iotistica.errors import Forbidden, Invalid, IotisticaError, NotFound, Unauthorized
from iotistica.storage.agents import agent_search, reported_states
from iotistica.storage.agents.agent_search import AgentFilter
from iotistica.storage.delivery.live import KINDS, ON_DEMAND_KINDS, LiveKind
from iotistica.storage.delivery.live_hub import Listener, LiveMessage
from iotistica.storage.postgres import Database, Tx

CHOSEN: Final = 100  # agents that may be chosen by name
SHOWN: Final = 1000  # agents of a snapshot of all
HEARTBEAT: Final = 15.0  # seconds of nothing until a comment keeps the connection open
CHECKED: Final = 10.0  # seconds between looks whether the caller still may
NEEDS: Final[dict[LiveKind, str]] = {
    "state": "agents.read",
    "metrics": "readings.read",
    "readings": "readings.read",
    "logs": "logs.read",
    "events": "agents.read",
}

Agents = Annotated[str, QueryParameter(min_length=1, max_length=CHOSEN * 40)]
Kinds = Annotated[str, QueryParameter(max_length=100)]


@get("/live", opt={"permission": "agents.read"}, tags=["live"], media_type="text/event-stream")
async def live(
    request: ApiRequest,
    database: DatabaseDep,
    live_hub: LiveHubDep,
    authenticator: AuthenticatorDep,
    agents: Agents,
    kinds: Kinds = "state,metrics,events",
) -> Stream:
    """Follow agents, their uuids by commas, or `all`: events named as `kinds`, after one that is a `snapshot`.

    Readings and logs need agents by name. It ends with an `end` that says why; connect again then.
    """
    who, wanted = request.auth, kinds_of(kinds)
    chosen = agents_of(agents, wanted)
    check_kinds(who, wanted)
    live_hub.check_limits(who.tenant, who.id)
    await snapshot(database, who.tenant, chosen, wanted)  # an agent that is unknown is told at once
    address, headers = address_of(request), dict(request.headers)

    async def may_still() -> None:
        check_kinds(await authenticator.authenticate(headers, address, fresh=True), wanted)

    async def events() -> AsyncIterator[bytes]:
        try:
            with live_hub.listen(who.tenant, who.id) as listener:
                listener.agents, listener.kinds = chosen, wanted
                await live_hub.wait_until_subscribed(listener)
                first = await snapshot(database, who.tenant, chosen, wanted)
                yield b"retry: 2000\n" + _event("snapshot", msgspec.json.encode(first))
                async for told in follow(listener, may_still):
                    yield b"".join(_event(one.kind, one.content) for one in told) or b": still here\n\n"
                reason = listener.ended
        except IotisticaError as exc:
            reason = str(exc)
        yield _event("end", msgspec.json.encode({"reason": reason}))

    headers_ = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(events(), media_type="text/event-stream", headers=headers_)


async def follow(listener: Listener, may_still: Any) -> AsyncIterator[list[LiveMessage]]:
    """What comes, together; an empty list where nothing did for a while. Ends with the listener."""
    clock = asyncio.get_running_loop().time
    checked = spoke = clock()
    while not listener.ended:
        told = await listener.take(CHECKED)
        if clock() - checked >= CHECKED:
            checked = clock()
            try:
                await may_still()
            except (Unauthorized, Forbidden) as exc:
                listener.end(str(exc))
                return
            except IotisticaError:
                pass  # who is away is asked again
        if told or clock() - spoke >= HEARTBEAT:
            spoke = clock()
            yield told


def kinds_of(text: str) -> frozenset[LiveKind]:
    """The kinds that are named; raises `Invalid`."""
    named = {word.strip() for word in text.split(",") if word.strip()}
    if not named or named - {*KINDS}:
        raise Invalid(f"some of {', '.join(KINDS)}, by commas", "kinds")
    return frozenset(cast(set[LiveKind], named))


def agents_of(text: str, kinds: Collection[LiveKind]) -> frozenset[UUID] | None:
    """The agents that are named, None for all; raises `Invalid`."""
    if text == "all":
        check_named(None, kinds)
        return None
    try:
        named = frozenset(UUID(word.strip()) for word in text.split(","))
    except ValueError:
        raise Invalid("uuids by commas, or all", "agents") from None
    if len(named) > CHOSEN:
        raise Invalid(f"at most {CHOSEN} agents by name", "agents")
    return named


def check_named(agents: frozenset[UUID] | None, kinds: Collection[LiveKind]) -> None:
    """Raise `Invalid` if all agents are meant, and kinds that are told only of named ones."""
    if agents is None and {*kinds} & {*ON_DEMAND_KINDS}:
        raise Invalid(f"readings and logs need agents by name, at most {CHOSEN}", "agents")


def check_kinds(who: Principal, kinds: Collection[LiveKind]) -> None:
    """Raise `Forbidden` if somebody may not see one of these kinds."""
    for kind in sorted(kinds):
        if who.kind == "agent" or not is_allowed(NEEDS[kind], who.role, who.scopes):
            raise Forbidden(f"{kind} need the scope {NEEDS[kind]}")


async def snapshot(
    database: Database, tenant: TenantId, agents: frozenset[UUID] | None, kinds: Collection[LiveKind]
) -> dict[str, Any]:
    """How agents are now; raises `NotFound`."""
    async with database.transaction(tenant) as tx:
        if agents is None:
            found = await agent_search.page(tx, tenant, AgentFilter(), limit=SHOWN + 1)
            return {"agents": [_shown(one) for one in found[:SHOWN]], "more": len(found) > SHOWN}
        return {"agents": [await _one(tx, tenant, agent, kinds) for agent in sorted(agents)], "more": False}


async def _one(tx: Tx, tenant: TenantId, agent: UUID, kinds: Collection[LiveKind]) -> dict[str, Any]:
    found = await agent_search.get(tx, tenant, agent)
    if found is None:
        raise NotFound
    if not {"state", "metrics"} & {*kinds}:
        return _shown(found)
    row = await reported_states.get(tx, tenant, agent)
    return _shown(found) | {"state": document_secrets.mask(row.merged.values) if row else {}}


def _shown(agent: agent_search.AgentSummary) -> dict[str, Any]:
    return {
        "agentUuid": agent.agent_uuid,
        "name": agent.name,
        "status": agent.status or "new",
        "since": agent.since,
        "lastSeen": agent.last_seen,
    }


def _event(name: str, content: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), content)
