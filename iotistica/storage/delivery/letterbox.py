"""The dead letters that were put aside: looked at, given back to the stream they failed in, thrown away."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from iotistica.domain.delivery import topics
from iotistica.domain.ids import TenantId
from iotistica.errors import Full, Invalid, InvalidMessage
from iotistica.storage.delivery.streams import OF, READINGS, encode
from iotistica.storage.redis import PLATFORM_DLQ, Redis, dead_letter_stream, ledger_key, translated

ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")
SCANNED: Final = 5000  # letters that are looked at for one page
READ: Final = 200  # letters read at a time; each may hold a megabyte
MOST: Final = 1000  # letters given back or thrown away at a time


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter; `received` when it came, `at` when it was put aside, `size` as sent, -1 if unknown."""

    id: str
    at: datetime
    received: datetime
    received_us: int
    stream: str
    topic: str
    payload: bytes
    size: int
    reason: str
    detail: str
    attempts: int

    @property
    def is_whole(self) -> bool:
        return self.size == len(self.payload)

    @property
    def agent(self) -> str | None:
        """The agent that its topic names."""
        try:
            return str(topics.route(self.topic.encode("utf-8", "surrogateescape")).agent)
        except InvalidMessage:
            return None


class Page(msgspec.Struct, frozen=True):
    letters: list[Letter]
    next: str | None
    """The last that was looked at, if there may be more behind it."""


async def page(
    redis: Redis,
    tenant: TenantId | None,
    *,
    after: str | None,
    limit: int,
    reason: str | None = None,
    agent: str | None = None,
) -> Page:
    """Letters of a tenant, or of no tenant we know, the oldest first; raises `Invalid` for a bad cursor."""
    found: list[Letter] = []
    scanned = 0
    while scanned < SCANNED:
        letters = await _range(redis, tenant, f"({after}" if after else "-", "+", min(READ, SCANNED - scanned))
        for letter in letters:
            after = letter.id
            if (reason is None or letter.reason == reason) and (agent is None or letter.agent == agent):
                found.append(letter)
                if len(found) == limit:
                    return Page(found, after)
        if len(letters) < READ:
            return Page(found, None)
        scanned += len(letters)
    return Page(found, after)


async def get(redis: Redis, tenant: TenantId | None, id_: str) -> Letter | None:
    """One letter; None for an id of nothing, or that is no id at all."""
    if not ID.fullmatch(id_):
        return None
    found = await _range(redis, tenant, id_, id_, 1)
    return found[0] if found else None


async def some(redis: Redis, tenant: TenantId | None, ids: Sequence[str]) -> list[Letter]:
    """Those of these letters that are there."""
    return [letter for id_ in dict.fromkeys(ids) if (letter := await get(redis, tenant, id_))]


async def newest(redis: Redis, tenant: TenantId) -> str:
    """The id of the last letter."""
    with translated(redis):
        rows: Any = await redis.xrevrange(dead_letter_stream(tenant), count=1)
    return rows[0][0].decode() if rows else "0-0"


async def _range(redis: Redis, tenant: TenantId | None, first: str, last: str, count: int) -> list[Letter]:
    key = dead_letter_stream(tenant) if tenant else PLATFORM_DLQ
    with translated(redis):
        try:
            rows: Any = await redis.xrange(key, min=first, max=last, count=count)
        except ResponseError as exc:
            raise Invalid("this is no id of a dead letter", "id") from exc
    return [_letter(id_.decode(), facts) for id_, facts in rows]


def _letter(id_: str, facts: dict[bytes, bytes]) -> Letter:
    received = int(facts[b"received"])
    return Letter(
        id=id_,
        at=datetime.fromtimestamp(int(id_.split("-", maxsplit=1)[0]) / 1000, tz=UTC),
        received=datetime.fromtimestamp(received / 1e6, tz=UTC),
        received_us=received,
        stream=facts[b"stream"].decode(),
        topic=facts[b"topic"].decode("utf-8", "surrogateescape"),
        payload=facts[b"payload"],
        size=int(facts[b"size"]),
        reason=facts[b"reason"].decode(),
        detail=facts[b"detail"].decode("utf-8", "replace"),
        attempts=int(facts[b"attempts"]),
    )


FIRST: Final = 3  # of the keys that name streams, as Lua counts
# A letter that is not there any more was given back or thrown away before: it is not given back twice.
REPLAY: Final = """
local replayed = 0
for i = 1, #ARGV, 6 do
    local id, stream, messages, received, attempts, size = unpack(ARGV, i, i + 5)
    if redis.call('XDEL', KEYS[1], id) == 1 then
        redis.call('XADD', KEYS[tonumber(stream)], '*', 'n', 1, 't', received, 'm', messages, 'a', attempts)
        redis.call('HINCRBY', KEYS[2], 'taken', 1)
        redis.call('HINCRBY', KEYS[2], 'waiting', 1)
        redis.call('HINCRBY', KEYS[2], 'dead_bytes', -size)
        replayed = replayed + 1
    end
end
return replayed
"""
DISCARD: Final = """
local gone = 0
for i = 1, #ARGV, 2 do
    if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
        redis.call('HINCRBY', KEYS[2], 'dead_bytes', -ARGV[i + 1])
        gone = gone + 1
    end
end
if gone > 0 then
    redis.call('HDEL', KEYS[2], 'dead_unkept')
end
return gone
"""


async def replay(redis: Redis, tenant: TenantId, letters: Sequence[Letter], *, mark: int) -> int:
    """Give letters back to their stream, as taken in anew; how many. Those of which only the head is kept stay.

    What was stored of them before is a duplicate then, and what fails again comes back as another letter, with
    one more attempt. Raises `Full` when the stream holds `mark` entries.
    """
    arguments: list[Any] = []
    for letter in letters:
        topic = letter.topic.encode("utf-8", "surrogateescape")
        if not letter.is_whole or letter.agent is None:
            continue
        stream = FIRST + list(OF).index(topics.route(topic).stream)
        message = encode([(topic, letter.payload)])
        arguments += [letter.id, stream, message, letter.received_us, letter.attempts, len(letter.payload)]
    if not arguments:
        return 0
    keys = (dead_letter_stream(tenant), ledger_key(tenant), *(kind.stream(tenant) for kind in OF.values()))
    with translated(redis):
        if await redis.xlen(READINGS.stream(tenant)) >= mark:
            raise Full("the stream is full: wait until what is in it is stored")
        return int(await redis.eval(REPLAY, len(keys), *keys, *arguments))


async def discard(redis: Redis, tenant: TenantId, letters: Sequence[Letter]) -> int:
    """Throw letters away; how many."""
    arguments = [argument for letter in letters for argument in (letter.id, len(letter.payload))]
    if not arguments:
        return 0
    with translated(redis):
        return int(await redis.eval(DISCARD, 2, dead_letter_stream(tenant), ledger_key(tenant), *arguments))
