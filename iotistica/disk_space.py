"""The room on the disk that the database of this machine has."""

import shutil
import time
from pathlib import Path
from typing import Final

from iotistica.alarms import Alarms
from iotistica.domain.telemetry.disk_budget import DiskLevel, disk_level, reserve

CACHE_SECONDS: Final = 2.0  # seconds a look is believed
ALARM: Final = "disk_short"


class DiskSpace:
    """Looks at the file system of a folder; without one, since the database is elsewhere, there is always room."""

    def __init__(self, folder: Path | None, alarms: Alarms, *, kept: int = 0) -> None:
        """`kept` bytes are left free; 0 is a share of the disk."""
        self._folder = folder
        self._kept = kept
        self._alarms = alarms
        self._at = -CACHE_SECONDS
        self._level: DiskLevel = "ok"
        self.free: int | None = None

    def level(self) -> DiskLevel:
        """What still goes on."""
        if self._folder is not None and time.monotonic() - self._at > CACHE_SECONDS:
            self._at = time.monotonic()
            usage = shutil.disk_usage(self._folder)
            self.free = usage.free
            self._level = disk_level(usage.free, self._kept or reserve(usage.total))
            self._alarms.set(ALARM, _TEXT[self._level])
        return self._level


_TEXT: Final[dict[DiskLevel, str | None]] = {
    "ok": None,
    "low": "the disk is nearly full: rollups have stopped, readings are still stored; make room",
    "short": "the disk is full: readings wait in Redis and the spool, then with the broker; make room",
}
