"""What happens now, told to whoever listens: nothing waits for a listener, and nothing is kept for one."""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.errors import Unavailable
from iotistica.storage.redis import Redis, live_channel, translated

Kind = Literal["state", "metrics", "readings", "logs", "events"]
KINDS: Final[tuple[Kind, ...]] = ("state", "metrics", "readings", "logs", "events")


class News(NamedTuple):
    """One message to the listeners of an agent."""

    tenant: TenantId
    agent: UUID
    kind: Kind
    content: dict[str, Any]


async def publish(redis: Redis, news: Sequence[News]) -> None:
    """Tell the listeners; if Redis is away they miss it, and begin with a snapshot when they come back."""
    if not news:
        return
    try:
        with translated(redis):
            async with redis.pipeline(transaction=False) as pipe:
                for one in news:
                    pipe.publish(live_channel(one.tenant, one.agent, one.kind), msgspec.json.encode(one.content))
                await pipe.execute()
    except Unavailable:
        return
