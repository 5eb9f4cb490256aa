"""Consumers of the streams that are gone."""

from typing import Any, Final

from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.storage.redis import Redis, translated
from iotistica.storage.streams import READINGS

GONE: Final = 3_600_000  # ms without a sign of life


async def forget(redis: Redis, tenant: TenantId) -> int:
    """Remove the names of consumers that are gone and have nothing in work; how many there were."""
    stream, group = READINGS.stream(tenant), READINGS.group(tenant)
    with translated(redis):
        try:
            found: list[dict[str, Any]] = await redis.xinfo_consumers(stream, group)
        except ResponseError:
            return 0  # no such stream yet
        gone = [one["name"] for one in found if not one["pending"] and one["idle"] > GONE]
        for name in gone:
            await redis.xgroup_delconsumer(stream, group, name)
    return len(gone)
