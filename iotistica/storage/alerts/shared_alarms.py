"""The alarms of all processes, which the process that applies alert rules must know."""

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from iotistica.storage.redis import ALARMS, Redis, guarded

STALE_SECONDS: Final = 20.0  # seconds after which the alarms of a process that tells no more are forgotten
LONGEST: Final = 1000  # characters of the text of an alarm


class _Shared(msgspec.Struct, frozen=True):
    at: float
    raised: dict[str, str]


async def share(redis: Redis, process: str, raised: Mapping[str, str]) -> None:
    """Tell which alarms a process raises now; raises `Unavailable`."""
    content = _Shared(time.time(), {name: text[:LONGEST] for name, text in raised.items()})
    with guarded(redis):
        await redis.hset(ALARMS, process, msgspec.json.encode(content))
        await redis.expire(ALARMS, int(STALE_SECONDS * 2))


async def raised(redis: Redis) -> dict[str, str]:
    """Return the alarms that some process raises now, by name, each with its text; raises `Unavailable`."""
    with guarded(redis):
        shared: dict[Any, Any] = await redis.hgetall(ALARMS)
    found: dict[str, str] = {}
    for process, content in shared.items():
        told = msgspec.json.decode(content, type=_Shared)
        if time.time() - told.at < STALE_SECONDS:
            found |= told.raised
        else:
            with guarded(redis):
                await redis.hdel(ALARMS, process.decode())
    return found
