"""The decoded content of a batch of messages, ready to be stored."""

from collections import Counter
from collections.abc import Callable
from datetime import date
from uuid import UUID

from iotistica.domain.delivery.envelopes import ParsedPayload
from iotistica.domain.delivery.message_gaps import MessageNumber, number_of
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.storage.delivery.acknowledgement import NotStored, ParkedMessage
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.ledger import CommittedEntry, EntryOutcome
from iotistica.storage.delivery.streams import EntryKey
from iotistica.storage.telemetry import partitions
from iotistica.storage.telemetry.readings import AgentCounts

MessageKey = tuple[EntryKey, int]
"""An entry and the number of one of its messages."""


class EntryProgress:
    """Progress within an entry: the messages committed before, and those decoded and not stored now."""

    def __init__(self, before: CommittedEntry | None = None) -> None:
        self.before = before or CommittedEntry(0, frozenset(), frozenset())
        self.seen = 0
        self.letters: list[NewDeadLetter] = []
        self.parked: list[ParkedMessage] = []

    def copy(self) -> "EntryProgress":
        """Return a copy whose changes do not affect this object."""
        copy = EntryProgress(self.before)
        copy.seen, copy.letters, copy.parked = self.seen, [*self.letters], [*self.parked]
        return copy

    @property
    def not_stored(self) -> NotStored:
        return NotStored(self.letters, self.parked)


class ReadingsBatch:
    """The decoded content of a batch of entries, with everything to count, and the messages that are not stored."""

    def __init__(self) -> None:
        self.rows: dict[UUID, dict[tuple[str, int], Reading]] = {}
        self.counts: dict[UUID, AgentCounts] = {}
        self.rejections: dict[tuple[TenantId, UUID, str], int] = {}
        self.dead: Counter[str] = Counter()  # dead letters by reason
        self.message_numbers: list[tuple[TenantId, UUID, MessageNumber]] = []
        self.progress: dict[EntryKey, EntryProgress] = {}
        self.entries: list[EntryOutcome] = []
        self.minutes: Counter[tuple[TenantId, int]] = Counter()  # readings by the minute of their reception
        self.messages = 0  # messages whose content is to be stored
        self.last: MessageKey | None = None  # the last of these messages
        self.faults: Counter[TenantId] = Counter()  # messages that the platform failed to decode
        self.unstorable: Counter[TenantId] = Counter()  # messages that the database refuses
        self.found = 0  # readings, duplicates included
        self.repeats: dict[UUID, list[Reading]] = {}  # readings whose key an earlier reading of the batch has

    def add(self, tenant: TenantId, agent: UUID, found: ParsedPayload, received: int) -> None:
        """Add the readings of one payload, received at `received` us since the epoch; the first of a key wins."""
        count = self.counts.get(agent)
        if count is None:
            count = self.counts[agent] = AgentCounts(tenant)
            self.rows[agent] = {}
        count.found += len(found.readings)
        self.found += len(found.readings)
        self.minutes[tenant, received // 60_000_000] += len(found.readings)
        rows = self.rows[agent]
        for reading in found.readings:
            if rows.setdefault((reading.metric_name, reading.time), reading) is not reading:
                self.repeats.setdefault(agent, []).append(reading)
        for reason, times in found.rejected.items():
            count.found += times
            count.rejected += times
            key = tenant, agent, reason
            self.rejections[key] = self.rejections.get(key, 0) + times
        for msg_id in found.msg_ids:
            if number := number_of(msg_id):
                self.message_numbers.append((tenant, agent, number))

    def reject(self, reason: str, is_refused: Callable[[UUID, Reading], bool]) -> None:
        """Reject valid readings for a reason that is not in the readings themselves, such as a quota."""
        for agent, rows in self.rows.items():
            keys = [key for key, reading in rows.items() if is_refused(agent, reading)]
            if keys:
                refused = len(keys) + self._drop_repeats(agent, set(keys))
                for key in keys:
                    del rows[key]
                count = self.counts[agent]
                count.rejected += refused
                ledger_key = count.tenant, agent, reason
                self.rejections[ledger_key] = self.rejections.get(ledger_key, 0) + refused

    def _drop_repeats(self, agent: UUID, keys: set[tuple[str, int]]) -> int:
        """Forget the repeats of refused readings, which are refused with them; returns how many there were."""
        repeats = self.repeats.get(agent, [])
        kept = [reading for reading in repeats if (reading.metric_name, reading.time) not in keys]
        if len(kept) == len(repeats):
            return 0
        self.repeats[agent] = kept
        return len(repeats) - len(kept)

    def days(self) -> set[date]:
        """Return the days whose partitions the readings need."""
        times = {reading.time // partitions.DAY_US for rows in self.rows.values() for reading in rows.values()}
        return {partitions.day_of(day * partitions.DAY_US) for day in times}
