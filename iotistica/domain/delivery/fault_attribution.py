"""Whose fault it is when messages cannot be stored: theirs, or ours."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

FAILURES_LIMIT: Final = 50  # messages in a row that could not be stored, beyond which no more are put aside
BATCHES_REMEMBERED: Final = 50  # of which it is remembered whose messages were stored


class FaultHistory:
    """Remembers how the last batches went; a sender is a tenant."""

    def __init__(self) -> None:
        self._refused: Counter[Hashable] = Counter()  # by the database, since most of a batch was stored
        self._faults: Counter[Hashable] = Counter()  # of ours while decoding, since then
        self._fine: deque[frozenset[Hashable]] = deque(maxlen=BATCHES_REMEMBERED)

    def record(
        self, stored: int, senders: Collection[Hashable], refused: Mapping[Any, int], faults: Mapping[Any, int]
    ) -> None:
        """Count a batch: messages that were stored and of whom, and those that could not be."""
        failed = sum(refused.values()) + sum(faults.values())
        if not stored and not failed:
            return
        self._fine.append(frozenset(senders) if stored else frozenset())
        if stored >= failed:
            self._refused.clear()
            self._faults.clear()
        else:
            self._refused.update(refused)
            self._faults.update(faults)

    def is_platform_fault(self, stored: int, refused: Mapping[Any, int], faults: Mapping[Any, int]) -> bool:
        """Whether, with this batch, everybody fails: then something of ours is broken.

        Never as long as anybody else's messages are stored; and what a payload alone may bring about, a fault while
        decoding, must have struck more than one sender.
        """
        if sum(refused.values()) + sum(faults.values()) <= stored:
            return False
        by_database, by_us = self._refused + Counter(refused), self._faults + Counter(faults)
        failed = by_database.keys() | by_us.keys()
        if frozenset().union(*self._fine) - failed:
            return False
        return by_database.total() >= FAILURES_LIMIT or (by_us.total() >= FAILURES_LIMIT and len(by_us) > 1)
