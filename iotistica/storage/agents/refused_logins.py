"""Log-ins that the broker refused without naming the account, counted by hour for the operator of the platform."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from iotistica.storage.redis import REFUSED_LOGINS, Redis, guarded

KEPT: Final = timedelta(hours=2)


class RefusedLogins(msgspec.Struct, frozen=True, kw_only=True):
    """The refused log-ins of the current and the previous hour of the clock, and the latest of them."""

    count: int
    at: datetime
    address: str | None
    """None if the log of the broker leaves open which connection it was."""


async def record(redis: Redis, addresses: list[str | None], at: datetime) -> None:
    """Count refused log-ins that the broker told at `at`, the latest last."""
    key = _key(at)
    with guarded(redis):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hincrby(key, "count", len(addresses))
            pipe.hset(key, mapping={"at": at.isoformat(), "address": addresses[-1] or ""})
            pipe.expire(key, KEPT)
            await pipe.execute()


async def recent(redis: Redis, now: datetime) -> RefusedLogins | None:
    """Return the refused log-ins of this hour and the one before; None if there were none."""
    with guarded(redis):
        found: list[dict[bytes, bytes]] = [await _hash(redis, _key(at)) for at in (now, now - timedelta(hours=1))]
    found = [hour for hour in found if hour]
    if not found:
        return None
    return RefusedLogins(
        count=sum(int(hour[b"count"]) for hour in found),
        at=datetime.fromisoformat(found[0][b"at"].decode()),
        address=found[0][b"address"].decode() or None,
    )


async def _hash(redis: Redis, key: str) -> dict[bytes, bytes]:
    values: Any = await redis.hgetall(key)
    return dict(values)


def _key(at: datetime) -> str:
    return f"{REFUSED_LOGINS}:{at.astimezone(UTC):%Y-%m-%dT%H}"
