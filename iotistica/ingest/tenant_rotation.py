"""The tenants whose streams one read covers: some at a time, so that each has its turn."""

from collections.abc import Collection

from iotistica.domain.ids import TenantId


class TenantRotation:
    """Chooses the tenants of the next read."""

    def __init__(self, size: int) -> None:
        """`size` is the number of tenants of one read."""
        self._size = size
        self._start = 0

    def next(self, tenants: Collection[TenantId]) -> list[TenantId]:
        """Return all tenants if they fit into one read, else those that follow the tenants of the last read."""
        ordered = sorted(tenants)
        if len(ordered) <= self._size:
            return ordered
        self._start = (self._start + self._size) % len(ordered)
        return (ordered + ordered)[self._start : self._start + self._size]
