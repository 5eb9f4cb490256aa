"""Dead letters: messages that cannot be processed, kept with their bytes and the reason, within bounds."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from iotistica.domain.ids import TenantId
from iotistica.storage.redis import PLATFORM_DLQ, Redis, dead_letter_stream, ledger_key, translated

HEAD: Final = 1024  # bytes kept of a payload that is not kept whole
BYTES: Final = 64 << 20  # of payloads among a tenant's dead letters
LETTERS: Final = 50_000  # of a tenant
UNKNOWN_KEPT: Final = 10_000  # messages for no tenant we know; the oldest go first


class DeadLetter(NamedTuple):
    """A message that cannot be processed, with the reason and its bytes."""

    topic: bytes
    payload: bytes
    received: int
    reason: str
    detail: str


async def keep_unknown(redis: Redis, letters: Sequence[DeadLetter]) -> None:
    """Keep the heads of messages of no tenant we know in one bounded stream of the platform."""
    with translated():
        async with redis.pipeline(transaction=False) as pipe:
            for letter in letters:
                pipe.execute_command("XADD", PLATFORM_DLQ, "MAXLEN", "~", UNKNOWN_KEPT, "*", *_fields(letter))
            await pipe.execute()


async def keep(redis: Redis, tenant: TenantId, letters: Sequence[DeadLetter]) -> None:
    """Put messages aside that never reach a stream, by their heads; counted as taken in and as refused."""
    with translated():
        kept = await redis.xlen(dead_letter_stream(tenant))
        async with redis.pipeline(transaction=True) as pipe:
            for letter in letters if kept < LETTERS else ():
                pipe.execute_command("XADD", dead_letter_stream(tenant), "*", *_fields(letter))
            pipe.execute_command("HINCRBY", ledger_key(tenant), "taken", len(letters))
            pipe.execute_command("HINCRBY", ledger_key(tenant), "refused", len(letters))
            await pipe.execute()


def _fields(letter: DeadLetter) -> tuple[Any, ...]:
    return (
        *("stream", "intake", "topic", letter.topic, "payload", letter.payload[:HEAD]),
        *("received", letter.received, "reason", letter.reason, "detail", letter.detail[:500], "attempts", 1),
    )
