"""Watches the free space of the disk with the built-in PostgreSQL's data."""

import shutil
import time
from pathlib import Path
from typing import Final

from iotistica.domain.telemetry.disk_budget import DiskLevel, disk_level, reserve
from iotistica.platform_alarms import Alarms

CACHE_SECONDS: Final = 2.0  # seconds before the free space is measured again
ALARM: Final = "disk_short"


class DiskSpace:
    """Watches the free space of a folder's disk; without a folder (external database), the level is always "ok"."""

    def __init__(self, folder: Path | None, alarms: Alarms, *, kept: int = 0) -> None:
        """`kept` is the number of bytes to leave free; 0 stands for the default share of the disk."""
        self._folder = folder
        self._kept = kept
        self._alarms = alarms
        self._at = -CACHE_SECONDS
        self._level: DiskLevel = "ok"
        self.free: int | None = None

    def level(self) -> DiskLevel:
        """Return the level, which decides what still runs; measures and updates the alarm if the cache is old."""
        if self._folder is not None and time.monotonic() - self._at > CACHE_SECONDS:
            self._at = time.monotonic()
            usage = shutil.disk_usage(self._folder)
            self.free = usage.free
            self._level = disk_level(usage.free, self._kept or reserve(usage.total))
            self._alarms.set(ALARM, _TEXT[self._level])
        return self._level


_TEXT: Final[dict[DiskLevel, str | None]] = {
    "ok": None,
    "low": "the disk is nearly full: rollups have stopped, but readings are still stored; free disk space",
    "short": "the disk is full: readings wait in Redis and the spool, then in the broker; free disk space",
}
