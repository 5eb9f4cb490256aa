"""Consumers of the streams that are gone."""

from typing import Any, Final

from redis.exceptions import ResponseError

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery.streams import READINGS
from iotistica.storage.redis import Redis, translated

GONE: Final = 3_600_000  # ms without a sign of life

# In one go: a consumer that wakes up in between would have what it reads then taken from it for ever.
FORGET: Final = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
end
return 0
"""


async def forget(redis: Redis, tenant: TenantId) -> int:
    """Remove the names of consumers that are gone and have nothing in work; how many there were."""
    stream, group = READINGS.stream(tenant), READINGS.group(tenant)
    with translated(redis):
        try:
            found: list[dict[str, Any]] = await redis.xinfo_consumers(stream, group)
        except ResponseError:
            return 0  # no such stream yet
        gone = [one["name"] for one in found if not one["pending"] and one["idle"] > GONE]
        return sum([int(await redis.eval(FORGET, 1, stream, group, name)) for name in gone])
