"""Routes that list, read, replay and discard dead letters."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, RedisDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Limit
from iotistica.errors import Invalid, NotFound
from iotistica.storage.delivery import dead_letter_replay, dead_letters
from iotistica.storage.delivery.dead_letters import DeadLetter
from iotistica.storage.history import audit
from iotistica.storage.redis import Redis

Id = Annotated[str, Meta(pattern=r"^[0-9]{1,15}-[0-9]{1,10}(?![\s\S])", description="id of a dead letter")]
Cursor = Annotated[str | None, QueryParameter(pattern=r"^[0-9]{1,15}-[0-9]{1,10}$", max_length=26)]
Filter = Annotated[str | None, QueryParameter(max_length=64)]


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`size` is in bytes as sent. A letter that is not `whole` is cut to its beginning and cannot be replayed."""

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


class DeadLetters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    dead_letters: list[DeadLetterView]
    count: int
    next: str | None
    """Pass it as `cursor` to continue; a page can be short or even empty although more letters follow."""


class DeadLetterWithBytes(DeadLetterView, frozen=True, kw_only=True, rename="camel"):
    """A dead letter with its payload in base64, and as text if the payload is text."""

    payload: str
    text: str | None


class DeadLetterChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters chosen by ids or by a reason, or all of them; at most 1000 at a time."""

    ids: Annotated[list[Id], Meta(max_length=dead_letters.CHANGE_LIMIT)] | None = None
    reason: Annotated[str, Meta(max_length=64)] | None = None
    all: Literal[True] | None = None


class DeadLettersChanged(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the chosen letters were changed, and whether more match.

    The others were replayed or discarded before, or cannot be replayed because only their beginning is kept.
    """

    done: int
    chosen: int
    more: bool


@get("/", opt={"permission": "ingestion.read"})
async def list_letters(
    request: ApiRequest,
    redis: RedisDep,
    reason: Filter = None,
    agent: Filter = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> DeadLetters:
    """List the messages that could not be processed, the oldest first."""
    page = await dead_letters.page(
        redis, tenant_of(request), after=cursor, limit=limit, reason=reason, agent=agent and agent.lower()
    )
    return DeadLetters(
        dead_letters=[_view(letter) for letter in page.letters], count=len(page.letters), next=page.next
    )


@get("/{id:str}", opt={"permission": "ingestion.manage"})
async def read_letter(request: ApiRequest, redis: RedisDep, id: FromPath[Id]) -> DeadLetterWithBytes:  # noqa: A002
    """Return one dead letter with its payload, which can contain secrets that an agent reported."""
    letter = await dead_letters.get(redis, tenant_of(request), id)
    if letter is None or letter.id != id:
        raise NotFound
    text = letter.payload.decode() if _is_text(letter.payload) else None
    return DeadLetterWithBytes(
        **msgspec.structs.asdict(_view(letter)), payload=b64encode(letter.payload).decode(), text=text
    )


@post("/replay", opt={"permission": "ingestion.manage"}, status_code=200)
async def replay(
    request: ApiRequest,
    data: JSONBody[DeadLetterChoice],
    database: DatabaseDep,
    redis: RedisDep,
    context: ServerContextDep,
) -> DeadLettersChanged:
    """Put dead letters back into the stream in which they failed.

    Messages that fail again become dead letters again.
    """
    tenant = tenant_of(request)
    letters, more = await _chosen(redis, request, data)
    done = await dead_letter_replay.replay(redis, tenant, letters, high_water_mark=context.settings.stream_mark)
    await _record(request, database, "dead_letters.replay", data, done)
    return DeadLettersChanged(done=done, chosen=len(letters), more=more)


@post("/discard", opt={"permission": "ingestion.manage"}, status_code=200)
async def discard(
    request: ApiRequest, data: JSONBody[DeadLetterChoice], database: DatabaseDep, redis: RedisDep
) -> DeadLettersChanged:
    """Delete dead letters for good; the audit log keeps their number."""
    letters, more = await _chosen(redis, request, data)
    done = await dead_letter_replay.discard(redis, tenant_of(request), letters)
    await _record(request, database, "dead_letters.discard", data, done)
    return DeadLettersChanged(done=done, chosen=len(letters), more=more)


async def _chosen(redis: Redis, request: ApiRequest, data: DeadLetterChoice) -> tuple[Sequence[DeadLetter], bool]:
    if sum(choice is not None for choice in (data.ids, data.reason, data.all)) != 1:
        raise Invalid("Give exactly one of ids, reason and all.")
    if data.ids is not None:
        return await dead_letters.get_many(redis, tenant_of(request), [*dict.fromkeys(data.ids)]), False
    page = await dead_letters.page(
        redis, tenant_of(request), after=None, limit=dead_letters.CHANGE_LIMIT, reason=data.reason
    )
    return page.letters, page.next is not None


async def _record(
    request: ApiRequest, database: DatabaseDep, action: str, data: DeadLetterChoice, done: int
) -> None:
    chosen = data.reason or ("all" if data.all else f"{len(set(data.ids or ()))} ids")
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await audit.record(tx, tenant, actor_of(request), action, ("dead_letters", chosen), after={"letters": done})


def _view(letter: DeadLetter) -> DeadLetterView:
    return DeadLetterView(
        id=letter.id,
        at=letter.at,
        received=letter.received,
        agent_uuid=letter.agent,
        topic=letter.topic.encode("utf-8", "replace").decode(),
        reason=letter.reason,
        detail=letter.detail,
        attempts=letter.attempts,
        size=letter.size,
        whole=letter.is_complete,
    )


def _is_text(payload: bytes) -> bool:
    try:
        return payload.decode().isprintable() or payload[:1] in b"{["
    except UnicodeDecodeError:
        return False


router = Router(
    "/ingestion/dead-letters", route_handlers=[list_letters, read_letter, replay, discard], tags=["ingestion"]
)
