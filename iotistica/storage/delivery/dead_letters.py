"""Dead letters: messages that cannot be processed, kept with their bytes and the reason, within limits."""

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

HEAD_BYTES: Final = 1024  # bytes kept of a payload that is not kept completely
TENANT_BYTES_LIMIT: Final = 64 << 20  # bytes of payloads in a tenant's dead letters
TENANT_LIMIT: Final = 50_000  # dead letters of a tenant
UNKNOWN_LIMIT: Final = 10_000  # messages of unknown tenants; the oldest are removed first
UNKNOWN_BYTES_LIMIT: Final = 32 << 20  # bytes of their payloads
LETTER_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")
SCAN_LIMIT: Final = 5000  # letters that are scanned for one page
READ_LIMIT: Final = 200  # letters read at a time; each can hold a megabyte
CHANGE_LIMIT: Final = 1000  # letters replayed or discarded at a time


class NewDeadLetter(NamedTuple):
    """A message that cannot be processed, its bytes and the reason; `received` in us since the epoch."""

    topic: bytes
    payload: bytes
    received: int
    reason: str
    detail: str
    attempts: int = 1
    size: int = -1  # bytes as sent, if only the head of the payload is kept; else -1

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments for `put_letter`."""
        return (self.topic, self.payload, self.received, self.reason, self.detail[:500], self.attempts)


def of_message(entry: Entry, number: int, reason: str, detail: str = "") -> NewDeadLetter:
    """Return a dead letter of the message at position `number` of a stream entry."""
    topic, payload = entry.messages[number]
    return NewDeadLetter(topic, payload, entry.received + number, reason, detail, entry.attempts + 1)


# Above the limit of bytes, a tenant's dead letters keep only the heads of payloads; above the limit of letters,
# only a count is kept. One sender of garbage must not fill the memory through which all tenants' readings pass.
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
    """Keep messages of unknown tenants in one stream of the platform; at its limits the oldest are removed."""
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
    """Store letters of messages that never reach a stream, with heads only; counted as taken and as refused."""
    arguments = [argument for letter in letters for argument in (*letter.arguments(), letter.size)]
    with guarded(redis):
        await redis.eval(ADD, 2, dead_letter_stream(tenant), ledger_key(tenant), *arguments)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter.

    `received` is when the message was received, `at` when it became a dead letter, `size` its bytes as sent, -1 if
    unknown.
    """

    id: str
    at: datetime
    received: datetime
    received_us: int
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
        """The agent in the letter's topic; None if the topic is not valid."""
        try:
            return str(topics.route(self.topic.encode("utf-8", "surrogateescape")).agent)
        except InvalidMessage:
            return None


def letter_details(letter: DeadLetter) -> dict[str, str]:
    """Return what the timeline tells of a dead letter."""
    topic = letter.topic.encode("utf-8", "replace").decode()
    return {"reason": letter.reason, "detail": letter.detail, "topic": topic, "id": letter.id}


class DeadLetterPage(msgspec.Struct, frozen=True):
    letters: list[DeadLetter]
    next: str | None
    """The id of the last letter scanned, if more letters can follow it."""


async def page(
    redis: Redis,
    tenant: TenantId | None,
    *,
    after: str | None,
    limit: int,
    reason: str | None = None,
    agent: str | None = None,
) -> DeadLetterPage:
    """Return letters of a tenant, or of unknown tenants (None), oldest first; raises `Invalid` for a bad cursor."""
    matching: list[DeadLetter] = []
    scanned = 0
    while scanned < SCAN_LIMIT:
        letters = await _range(
            redis, tenant, f"({after}" if after else "-", "+", min(READ_LIMIT, SCAN_LIMIT - scanned)
        )
        for letter in letters:
            after = letter.id
            if (reason is None or letter.reason == reason) and (agent is None or letter.agent == agent):
                matching.append(letter)
                if len(matching) == limit:
                    return DeadLetterPage(matching, after)
        if len(letters) < READ_LIMIT:
            return DeadLetterPage(matching, None)
        scanned += len(letters)
    return DeadLetterPage(matching, after)


async def newest(redis: Redis, tenant: TenantId, *, since: datetime, limit: int) -> list[DeadLetter]:
    """Return up to `limit` letters since a time, the oldest of them first, without their payloads."""
    with guarded(redis):
        rows: Any = await redis.xrevrange(
            dead_letter_stream(tenant), max="+", min=f"{int(since.timestamp() * 1000)}-0", count=limit
        )
    return [_letter(id_.decode(), facts | {b"payload": b""}) for id_, facts in reversed(rows)]


async def get(redis: Redis, tenant: TenantId | None, id_: str) -> DeadLetter | None:
    """Return one letter; None if there is none with this id, or the id is malformed."""
    if not LETTER_ID.fullmatch(id_):
        return None
    letters = await _range(redis, tenant, id_, id_, 1)
    return letters[0] if letters else None


async def get_many(redis: Redis, tenant: TenantId | None, ids: Sequence[str]) -> list[DeadLetter]:
    """Return those of these letters that exist."""
    return [letter for id_ in dict.fromkeys(ids) if (letter := await get(redis, tenant, id_))]


async def newest_id(redis: Redis, tenant: TenantId) -> str:
    """Return the id of the newest letter, `0-0` if there is none."""
    with guarded(redis):
        rows: Any = await redis.xrevrange(dead_letter_stream(tenant), count=1)
    return rows[0][0].decode() if rows else "0-0"


async def _range(redis: Redis, tenant: TenantId | None, first: str, last: str, count: int) -> list[DeadLetter]:
    key = dead_letter_stream(tenant) if tenant else PLATFORM_DLQ
    with guarded(redis):
        try:
            rows: Any = await redis.xrange(key, min=first, max=last, count=count)
        except ResponseError as exc:
            raise Invalid("is not the id of a dead letter", "id") from exc
    return [_letter(id_.decode(), facts) for id_, facts in rows]


def _letter(id_: str, facts: dict[bytes, bytes]) -> DeadLetter:
    received = int(facts[b"received"])
    return DeadLetter(
        id=id_,
        at=datetime.fromtimestamp(int(id_.split("-", maxsplit=1)[0]) / 1000, tz=UTC),
        received=datetime.fromtimestamp(received / 1e6, tz=UTC),
        received_us=received,
        topic=facts[b"topic"].decode("utf-8", "surrogateescape"),
        payload=facts[b"payload"],
        size=int(facts[b"size"]),
        reason=facts[b"reason"].decode(),
        detail=facts[b"detail"].decode("utf-8", "replace"),
        attempts=int(facts[b"attempts"]),
    )
