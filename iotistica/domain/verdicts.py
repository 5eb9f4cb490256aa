"""Whose fault it is when messages cannot be stored: theirs, or ours."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

FAILURES: Final = 50  # messages in a row that could not be stored, beyond which no more are put aside
BATCHES: Final = 50  # of which it is remembered whose messages were stored


class Verdicts:
    """Remembers how the last batches went."""

    def __init__(self) -> None:
        self._failed: Counter[Hashable] = Counter()  # since most of a batch was stored
        self._fine: deque[frozenset[Hashable]] = deque(maxlen=BATCHES)

    def add(self, stored: int, senders: Collection[Hashable], condemned: Mapping[Any, int]) -> None:
        """Count a batch: messages that were stored and of whom, and those that could not be."""
        if stored:
            self._fine.append(frozenset(senders))
        if stored >= sum(condemned.values()):
            self._failed.clear()
        else:
            self._failed.update(condemned)

    def are_hopeless(self, stored: int, condemned: Mapping[Any, int]) -> bool:
        """Whether, with this batch, most messages of everybody fail: then something of ours is broken.

        One sender among several that sends what cannot be stored never makes it so.
        """
        failed = self._failed + Counter(condemned)
        if failed.total() < FAILURES or sum(condemned.values()) <= stored:
            return False
        others = frozenset().union(*self._fine) - failed.keys()
        return len(failed) > 1 or not others
