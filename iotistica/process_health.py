"""The state of this process from which health reports are made."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from iotistica.platform_alarms import Alarms
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.delivery.inbox import Inbox


class StorageForecast(Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes on disk, and the days until the disk or the budget is full; `full` says which of them.

    `free` is the free space of the built-in PostgreSQL's disk, None for another PostgreSQL.
    """

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
    """What /health reports of this process; the parts register themselves when they are created."""

    breakers: list[CircuitBreaker]
    alarms: Alarms = field(default_factory=Alarms)
    inboxes: dict[str, Inbox] = {}
    workers: list[Callable[[], tuple[int, int, int]]] = []
    """Consumers that store readings: their present, minimum and maximum numbers."""
    storage: list[StorageForecast] = []
    """The latest forecast; only a process with the role background makes one."""
    tasks: dict[str, TaskHealth] = {}
    """Periodic background tasks by name, of the process that runs them."""
    pending_checks: dict[str, asyncio.Task[Any]] = {}
    """Health checks of the dependencies that have not been answered yet."""
