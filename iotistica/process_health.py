"""What of this process shows whether it is well."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from iotistica.alarms import Alarms
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.delivery.inbox import Inbox


class StorageForecast(Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes on the disk, and the days until it or the budget is `full`; `free` is of a disk of this machine."""

    readings: int
    rollups: int
    free: int | None
    bytes_a_day: int
    days_left: float | None
    full: str | None


class TaskHealth(Struct, kw_only=True):
    """How a periodic background task is doing."""

    since: float
    """Monotonic time of the last success, or of the start before the first one; seconds."""
    last_success: datetime | None = None
    failures: int = 0
    """Failures since the last success."""


class ProcessHealth(Struct, frozen=True, kw_only=True):
    """Filled while the process is put together."""

    breakers: list[CircuitBreaker]
    alarms: Alarms = field(default_factory=Alarms)
    inboxes: dict[str, Inbox] = {}
    workers: list[Callable[[], tuple[int, int, int]]] = []
    """Consumers that store readings: how many there are, at least and at most."""
    storage: list[StorageForecast] = []
    """The last look, of the process that does the timed work."""
    tasks: dict[str, TaskHealth] = {}
    """Periodic background tasks by name, of the process that runs them."""
    asking: dict[str, asyncio.Task[Any]] = {}
    """Questions to the parts that are on their way."""
