"""Dead letters: messages that cannot be processed, kept with their bytes and the reason, within bounds."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import TenantId
from iotistica.storage.redis import PLATFORM_DLQ, Redis, dead_letter_stream, ledger_key, translated

HEAD: Final = 1024  # bytes kept of a payload that is not kept whole
BYTES: Final = 64 << 20  # of payloads among a tenant's dead letters
LETTERS: Final = 50_000  # of a tenant
UNKNOWN_KEPT: Final = 10_000  # messages for no tenant we know; the oldest go first
UNKNOWN_BYTES: Final = 32 << 20  # of their payloads


class DeadLetter(NamedTuple):
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


FACTS: Final = 6  # arguments of a letter

# Beyond its byte cap a tenant's dead letters keep only the heads of payloads, beyond its cap of letters only a
# count: one sender of garbage must not fill the memory that everybody's readings pass through.
PUT_LETTER: Final = (
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
""".replace("{bytes}", str(BYTES))
    .replace("{head}", str(HEAD))
    .replace("{letters}", str(LETTERS))
)

KEEP_UNKNOWN: Final = """
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
""".replace("{bytes}", str(UNKNOWN_BYTES)).replace("{letters}", str(UNKNOWN_KEPT))


async def keep_unknown(redis: Redis, letters: Sequence[DeadLetter]) -> None:
    """Keep messages of no tenant we know in one stream of the platform; beyond its bounds the oldest go."""
    arguments = [argument for letter in letters for argument in letter.arguments()]
    with translated(redis):
        await redis.eval(KEEP_UNKNOWN, 2, PLATFORM_DLQ, f"{PLATFORM_DLQ}:bytes", *arguments)


KEEP: Final = (
    PUT_LETTER
    + """
for i = 1, #ARGV, 7 do
    put_letter(KEYS[1], KEYS[2], 'intake', unpack(ARGV, i, i + 6))
    redis.call('HINCRBY', KEYS[2], 'taken', 1)
    redis.call('HINCRBY', KEYS[2], 'refused', 1)
end
"""
)


async def keep(redis: Redis, tenant: TenantId, letters: Sequence[DeadLetter]) -> None:
    """Put messages aside that never reach a stream, by their heads; counted as taken in and as refused."""
    arguments = [argument for letter in letters for argument in (*letter.arguments(), letter.size)]
    with translated(redis):
        await redis.eval(KEEP, 2, dead_letter_stream(tenant), ledger_key(tenant), *arguments)
