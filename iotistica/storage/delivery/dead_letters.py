"""Dead letters: messages that cannot be processed, kept with their bytes and the reason, within bounds."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from iotistica.domain.delivery import topics
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid, InvalidMessage
from iotistica.storage.delivery.streams import Entry
from iotistica.storage.redis import PLATFORM_DLQ, Redis, dead_letter_stream, guarded, ledger_key

HEAD_BYTES: Final = 1024  # bytes kept of a payload that is not kept whole
TENANT_BYTES_LIMIT: Final = 64 << 20  # of payloads among a tenant's dead letters
TENANT_LIMIT: Final = 50_000  # of a tenant
UNKNOWN_LIMIT: Final = 10_000  # messages for no tenant we know; the oldest go first
UNKNOWN_BYTES_LIMIT: Final = 32 << 20  # of their payloads
LETTER_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")
SCAN_LIMIT: Final = 5000  # letters that are looked at for one page
READ_LIMIT: Final = 200  # letters read at a time; each may hold a megabyte
CHANGE_LIMIT: Final = 1000  # letters given back or thrown away at a time


class NewDeadLetter(NamedTuple):
    """A message that cannot be processed, with the reason and its bytes; `received` in us since the epoch."""

    topic: bytes
    payload: bytes
    received: int
    reason: str
    detail: str
    attempts: int = 1
    size: int = -1  # as sent, of one that is kept by its head

    def arguments(self) -> tuple[Any, ...]:
        """What `put_letter` takes."""
        return (self.topic, self.payload, self.received, self.reason, self.detail[:500], self.attempts)


def of_message(entry: Entry, number: int, reason: str, detail: str = "") -> NewDeadLetter:
    """The dead letter of one message of a stream entry, by its position."""
    topic, payload = entry.messages[number]
    return NewDeadLetter(topic, payload, entry.received + number, reason, detail, entry.attempts + 1)


# Beyond its byte cap a tenant's dead letters keep only the heads of payloads, beyond its cap of letters only a
# count: one sender of garbage must not fill the memory that everybody's readings pass through.
ADD_LETTER_FUNCTION: Final = (
    """
local function put_letter(dlq, ledger, stream, topic, payload, received, reason, detail, attempts, sent)
    local size, bytes = #payload, tonumber(redis.call('HGET', ledger, 'dead_bytes') or '0')
    if bytes + size > {bytes} and size > {head} then
        detail = 'only the head of ' .. size .. ' bytes is kept: too many dead letters. ' .. detail
        payload = string.sub(payload, 1, {head})
    end
    if redis.call('XLEN', dlq) < {letters} then
        redis.call('XADD', dlq, '*', 'stream', stream, 'topic', topic, 'payload', payload, 'size', sent or size,
            'received', received, 'reason', reason, 'detail', detail, 'attempts', attempts)
        redis.call('HINCRBY', ledger, 'dead_bytes', #payload)
    else
        redis.call('HINCRBY', ledger, 'dead_unkept', 1)
    end
end
""".replace("{bytes}", str(TENANT_BYTES_LIMIT))
    .replace("{head}", str(HEAD_BYTES))
    .replace("{letters}", str(TENANT_LIMIT))
)

ADD_FOR_UNKNOWN_TENANT: Final = """
local bytes = tonumber(redis.call('GET', KEYS[2]) or '0')
for i = 1, #ARGV, 6 do
    local topic, payload, received, reason, detail, attempts = unpack(ARGV, i, i + 5)
    redis.call('XADD', KEYS[1], '*', 'stream', 'intake', 'topic', topic, 'payload', payload, 'size', #payload,
        'received', received, 'reason', reason, 'detail', detail, 'attempts', attempts)
    bytes = bytes + #payload
    while bytes > {bytes} or redis.call('XLEN', KEYS[1]) > {letters} do
        local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
        redis.call('XDEL', KEYS[1], oldest[1])
        bytes = bytes - #oldest[2][6]
    end
end
redis.call('SET', KEYS[2], bytes)
""".replace("{bytes}", str(UNKNOWN_BYTES_LIMIT)).replace("{letters}", str(UNKNOWN_LIMIT))


async def add_for_unknown_tenant(redis: Redis, letters: Sequence[NewDeadLetter]) -> None:
    """Keep messages of no tenant we know in one stream of the platform; beyond its bounds the oldest go."""
    arguments = [argument for letter in letters for argument in letter.arguments()]
    with guarded(redis):
        await redis.eval(ADD_FOR_UNKNOWN_TENANT, 2, PLATFORM_DLQ, f"{PLATFORM_DLQ}:bytes", *arguments)


ADD: Final = (
    ADD_LETTER_FUNCTION
    + """
for i = 1, #ARGV, 7 do
    put_letter(KEYS[1], KEYS[2], 'intake', unpack(ARGV, i, i + 6))
    redis.call('HINCRBY', KEYS[2], 'taken', 1)
    redis.call('HINCRBY', KEYS[2], 'refused', 1)
end
"""
)


async def add(redis: Redis, tenant: TenantId, letters: Sequence[NewDeadLetter]) -> None:
    """Put messages aside that never reach a stream, by their heads; counted as taken in and as refused."""
    arguments = [argument for letter in letters for argument in (*letter.arguments(), letter.size)]
    with guarded(redis):
        await redis.eval(ADD, 2, dead_letter_stream(tenant), ledger_key(tenant), *arguments)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
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
    def is_complete(self) -> bool:
        return self.size == len(self.payload)

    @property
    def agent(self) -> str | None:
        """The agent that its topic names."""
        try:
            return str(topics.route(self.topic.encode("utf-8", "surrogateescape")).agent)
        except InvalidMessage:
            return None


class DeadLetterPage(msgspec.Struct, frozen=True):
    letters: list[DeadLetter]
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
) -> DeadLetterPage:
    """Letters of a tenant, or of no tenant we know, the oldest first; raises `Invalid` for a bad cursor."""
    found: list[DeadLetter] = []
    scanned = 0
    while scanned < SCAN_LIMIT:
        letters = await _range(
            redis, tenant, f"({after}" if after else "-", "+", min(READ_LIMIT, SCAN_LIMIT - scanned)
        )
        for letter in letters:
            after = letter.id
            if (reason is None or letter.reason == reason) and (agent is None or letter.agent == agent):
                found.append(letter)
                if len(found) == limit:
                    return DeadLetterPage(found, after)
        if len(letters) < READ_LIMIT:
            return DeadLetterPage(found, None)
        scanned += len(letters)
    return DeadLetterPage(found, after)


async def get(redis: Redis, tenant: TenantId | None, id_: str) -> DeadLetter | None:
    """One letter; None for an id of nothing, or that is no id at all."""
    if not LETTER_ID.fullmatch(id_):
        return None
    found = await _range(redis, tenant, id_, id_, 1)
    return found[0] if found else None


async def get_many(redis: Redis, tenant: TenantId | None, ids: Sequence[str]) -> list[DeadLetter]:
    """Those of these letters that are there."""
    return [letter for id_ in dict.fromkeys(ids) if (letter := await get(redis, tenant, id_))]


async def newest_id(redis: Redis, tenant: TenantId) -> str:
    """The id of the last letter."""
    with guarded(redis):
        rows: Any = await redis.xrevrange(dead_letter_stream(tenant), count=1)
    return rows[0][0].decode() if rows else "0-0"


async def _range(redis: Redis, tenant: TenantId | None, first: str, last: str, count: int) -> list[DeadLetter]:
    key = dead_letter_stream(tenant) if tenant else PLATFORM_DLQ
    with guarded(redis):
        try:
            rows: Any = await redis.xrange(key, min=first, max=last, count=count)
        except ResponseError as exc:
            raise Invalid("this is no id of a dead letter", "id") from exc
    return [_letter(id_.decode(), facts) for id_, facts in rows]


def _letter(id_: str, facts: dict[bytes, bytes]) -> DeadLetter:
    received = int(facts[b"received"])
    return DeadLetter(
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
