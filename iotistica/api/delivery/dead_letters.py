"""Dead letters: listed, read, given back to the stream they failed in, thrown away."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from iotistica.api.http.dependencies import Call, Data, Here, Streams
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.errors import Invalid, NotFound
from iotistica.storage.delivery import letterbox
from iotistica.storage.delivery.letterbox import Letter
from iotistica.storage.history import audit
from iotistica.storage.redis import Redis

Id = Annotated[str, Meta(pattern=r"^[0-9]{1,15}-[0-9]{1,10}(?![\s\S])", description="of a dead letter")]
Cursor = Annotated[str | None, QueryParameter(pattern=r"^[0-9]{1,15}-[0-9]{1,10}$", max_length=26)]
Filter = Annotated[str | None, QueryParameter(max_length=64)]


class LetterView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`size` is in bytes as sent; one that is not `whole` is kept by its head and cannot be replayed."""

    id: str
    at: datetime
    received: datetime
    agent_uuid: str | None
    topic: str
    reason: str
    detail: str
    attempts: int
    size: int
    whole: bool


class Letters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    dead_letters: list[LetterView]
    count: int
    next: str | None
    """Give it as `cursor` to look on; a page may be short, or empty, and have more behind it."""


class Opened(LetterView, frozen=True, kw_only=True, rename="camel"):
    """With its bytes in base64, and as text where they are text."""

    payload: str
    text: str | None


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters: by id, or all of a reason, or all; at most 1000 at a time."""

    ids: Annotated[list[Id], Meta(max_length=letterbox.MOST)] | None = None
    reason: Annotated[str, Meta(max_length=64)] | None = None
    all: Literal[True] | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How many; those missing were dealt with before, or only their head is kept."""

    done: int
    chosen: int
    more: bool


@get("/", opt={"permission": "ingestion.read"})
async def list_letters(
    request: Call,
    redis: Streams,
    reason: Filter = None,
    agent: Filter = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Letters:
    """Messages that could not be processed, the oldest first."""
    page = await letterbox.page(
        redis, tenant_of(request), after=cursor, limit=limit, reason=reason, agent=agent and agent.lower()
    )
    return Letters(dead_letters=[_view(letter) for letter in page.letters], count=len(page.letters), next=page.next)


@get("/{id:str}", opt={"permission": "ingestion.manage"})
async def read_letter(request: Call, redis: Streams, id: FromPath[Id]) -> Opened:  # noqa: A002
    """One of them with its bytes, which may hold secrets that an agent reported."""
    letter = await letterbox.get(redis, tenant_of(request), id)
    if letter is None or letter.id != id:
        raise NotFound
    text = letter.payload.decode() if _is_text(letter.payload) else None
    return Opened(**msgspec.structs.asdict(_view(letter)), payload=b64encode(letter.payload).decode(), text=text)


@post("/replay", opt={"permission": "ingestion.manage"}, status_code=200)
async def replay(request: Call, data: JSONBody[Chosen], database: Data, redis: Streams, site: Here) -> Done:
    """Give letters back to the stream they failed in; what fails again becomes a dead letter again."""
    tenant = tenant_of(request)
    letters, more = await _chosen(redis, request, data)
    done = await letterbox.replay(redis, tenant, letters, mark=site.settings.stream_mark)
    await _record(request, database, "dead_letters.replay", data, done)
    return Done(done=done, chosen=len(letters), more=more)


@post("/discard", opt={"permission": "ingestion.manage"}, status_code=200)
async def discard(request: Call, data: JSONBody[Chosen], database: Data, redis: Streams) -> Done:
    """Throw letters away, for ever; the audit keeps how many."""
    letters, more = await _chosen(redis, request, data)
    done = await letterbox.discard(redis, tenant_of(request), letters)
    await _record(request, database, "dead_letters.discard", data, done)
    return Done(done=done, chosen=len(letters), more=more)


async def _chosen(redis: Redis, request: Call, data: Chosen) -> tuple[Sequence[Letter], bool]:
    if sum(choice is not None for choice in (data.ids, data.reason, data.all)) != 1:
        raise Invalid("say which: one of ids, reason, all")
    if data.ids is not None:
        return await letterbox.some(redis, tenant_of(request), data.ids), False
    page = await letterbox.page(redis, tenant_of(request), after=None, limit=letterbox.MOST, reason=data.reason)
    return page.letters, page.next is not None


async def _record(request: Call, database: Data, action: str, data: Chosen, done: int) -> None:
    chosen = data.reason or ("all" if data.all else f"{len(data.ids or ())} ids")
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await audit.record(tx, tenant, actor_of(request), action, ("dead_letters", chosen), after={"letters": done})


def _view(letter: Letter) -> LetterView:
    return LetterView(
        id=letter.id,
        at=letter.at,
        received=letter.received,
        agent_uuid=letter.agent,
        topic=letter.topic.encode("utf-8", "replace").decode(),
        reason=letter.reason,
        detail=letter.detail,
        attempts=letter.attempts,
        size=letter.size,
        whole=letter.is_whole,
    )


def _is_text(payload: bytes) -> bool:
    try:
        return payload.decode().isprintable() or payload[:1] in b"{["
    except UnicodeDecodeError:
        return False


router = Router("/dead-letters", route_handlers=[list_letters, read_letter, replay, discard])
