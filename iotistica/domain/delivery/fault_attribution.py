"""Decides whether messages that cannot be stored are the fault of their senders or of the platform."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

FAILURES_LIMIT: Final = 50  # failed messages in a row that it takes to blame the platform
BATCHES_REMEMBERED: Final = 50  # latest batches whose successful senders are remembered


class FaultHistory:
    """The outcome of the latest batches, by sender; a sender is a tenant."""

    def __init__(self) -> None:
        # Failures by sender since the last batch of which at least half was stored.
        self._refused: Counter[Hashable] = Counter()  # messages that the database refused
        self._faults: Counter[Hashable] = Counter()  # messages that the platform failed to decode
        self._stored_senders: deque[frozenset[Hashable]] = deque(maxlen=BATCHES_REMEMBERED)

    def record(
        self, stored: int, senders: Collection[Hashable], refused: Mapping[Any, int], faults: Mapping[Any, int]
    ) -> None:
        """Record the outcome of a batch.

        `stored` messages of `senders` were stored. `refused` and `faults` count failed messages by sender: those
        that the database refused, and those that the platform could not decode.
        """
        failed = sum(refused.values()) + sum(faults.values())
        if not stored and not failed:
            return
        self._stored_senders.append(frozenset(senders) if stored else frozenset())
        if stored >= failed:
            self._refused.clear()
            self._faults.clear()
        else:
            self._refused.update(refused)
            self._faults.update(faults)

    def is_platform_fault(self, stored: int, refused: Mapping[Any, int], faults: Mapping[Any, int]) -> bool:
        """Whether, counting this batch, the messages of all senders fail, so that the platform itself is broken.

        False as long as messages of any other sender are stored. A single payload can cause a fault while decoding,
        so such faults count only if they affect more than one sender.
        """
        if sum(refused.values()) + sum(faults.values()) <= stored:
            return False
        by_database, by_decoder = self._refused + Counter(refused), self._faults + Counter(faults)
        failed = by_database.keys() | by_decoder.keys()
        if frozenset().union(*self._stored_senders) - failed:
            return False
        return by_database.total() >= FAILURES_LIMIT or (
            by_decoder.total() >= FAILURES_LIMIT and len(by_decoder) > 1
        )
