"""Tells the other processes which alarms this one raises."""

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final

from iotistica.storage.alerts import shared_alarms
from iotistica.storage.redis import Redis
from iotistica.supervise import Group, sleep

SHARE_SECONDS: Final = 5.0  # seconds between two tellings


def share_alarms(redis: Redis, raised: Mapping[str, str]) -> Group:
    """Return the group that tells the raised alarms of this process until it is stopped."""

    async def run(stop: asyncio.Event) -> None:
        process = f"{socket.gethostname()}-{os.getpid()}"
        while not stop.is_set():
            await shared_alarms.share(redis, process, raised)
            await sleep(SHARE_SECONDS, stop)

    return run
