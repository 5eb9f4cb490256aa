"""Applies the part of a control or log entry that fits in one transaction."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from iotistica.domain import codec
from iotistica.domain.delivery import key_compaction, topics
from iotistica.domain.delivery.topics import Route
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage
from iotistica.ingest import event_messages, job_messages, lifecycle_messages, log_messages
from iotistica.ingest.event_messages import EventMessages
from iotistica.ingest.job_messages import JobMessages
from iotistica.ingest.lifecycle_messages import LifecycleMessages
from iotistica.ingest.log_messages import LogMessages
from iotistica.ingest.state_reports import StateReports
from iotistica.storage.agents import presence
from iotistica.storage.delivery import dead_letters, ledger
from iotistica.storage.delivery import dictionaries as table
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.dictionaries import KnownDictionary
from iotistica.storage.delivery.ledger import EntryOutcome
from iotistica.storage.delivery.streams import Entry
from iotistica.storage.postgres import Database, Tx

DICTIONARY: Final = (b"meta/dictionary", b"meta/dictionary/delta")
STATE: Final = b"state"
TRANSACTION_SECONDS: Final = 3.0  # for the messages of one transaction; the last message can exceed it


class EntryPart:
    """The messages of an entry, from number `start` on, that one transaction applies."""

    def __init__(
        self, entry: Entry, start: int, unstorable: Mapping[int, NewDeadLetter], reports: StateReports, *, most: int
    ) -> None:
        self._entry = entry
        self._last = min(start + most, len(entry.messages))
        self.reports = reports
        self.lines, self._lifecycle = LogMessages(entry.tenant), LifecycleMessages(entry.tenant)
        self.answers, self.events = JobMessages(entry.tenant), EventMessages(entry.tenant)
        self._start = start
        self._unstorable = unstorable
        self.end = start
        self.at: int | None = None
        """Number of the message that is being applied; None while it cannot be attributed to one."""
        self.letters: dict[int, NewDeadLetter] = {}
        self.dictionaries: dict[tuple[UUID, int], KnownDictionary] = {}

    async def apply(self, tx: Tx, database: Database, owners: Mapping[UUID, TenantId]) -> None:
        """Apply messages until `TRANSACTION_SECONDS` have passed, then write the collected changes once."""
        entry, began = self._entry, time.monotonic()
        while self.end < self._last and time.monotonic() - began < TRANSACTION_SECONDS:
            self.at = number = self.end
            if number not in self._unstorable:
                try:
                    await self._take(tx, number, owners)
                except InvalidMessage as exc:
                    self.letters[number] = dead_letters.of_message(entry, number, exc.code, exc.detail)
            self.end += 1
            await asyncio.sleep(0)
        if self._last - self._start > 1:
            self.at = None
        refused = await self.reports.write(tx) | await self.answers.write(tx)
        for number, refusal in refused.items():
            self.letters[number] = dead_letters.of_message(entry, number, refusal.code, refusal.detail)
        await self.lines.write(tx, database)
        await self._lifecycle.write(tx)
        await self.events.write(tx)
        active = self.answers.agents | self._lifecycle.agents | self.events.agents
        await presence.record_activity(tx, entry.tenant, active, data=True)
        await presence.record_activity(tx, entry.tenant, {agent for agent, _ in self.lines.batches}, data=False)
        self.at = None
        for (agent, version), known in self.dictionaries.items():
            await table.put(tx, entry.tenant, agent, version, known)
        dead = [n for n in range(self._start, self.end) if n in self._unstorable or n in self.letters]
        await ledger.record_entries(tx, [EntryOutcome(*entry.key, self._start, self.end - self._start, dead)])

    async def _take(self, tx: Tx, number: int, owners: Mapping[UUID, TenantId]) -> None:
        topic, payload = self._entry.messages[number]
        route = topics.route(topic)
        if owners.get(route.agent) != self._entry.tenant:
            raise InvalidMessage("unknown_agent")
        if not route.is_read:
            raise InvalidMessage("unknown_topic", topics.why_unknown(route.subtopic))
        if route.subtopic == STATE:
            self.reports.add(number, route.agent, payload, self._entry.received + number)
        elif route.subtopic.startswith(lifecycle_messages.TOPIC):
            self._lifecycle.add(route.agent, route.subtopic, payload, self._entry.received + number)
        elif route.subtopic.startswith(event_messages.TOPIC):
            self.events.add(route.agent, route.subtopic, payload, self._entry.received + number)
        elif route.subtopic.startswith(job_messages.TOPIC):
            self.answers.add(number, route.agent, route.subtopic, payload, self._entry.received + number)
        elif route.subtopic.startswith(log_messages.TOPIC):
            self.lines.add(route.agent, route.subtopic, payload, self._entry.received + number)
        else:
            await self._store_dictionary(tx, route, payload)

    async def _store_dictionary(self, tx: Tx, route: Route, payload: bytes) -> None:
        document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
        update = key_compaction.parse_update(codec.decode(document, is_msgpack, object))
        key = route.agent, update.version
        known = self.dictionaries.get(key) or await table.get(tx, self._entry.tenant, *key)
        self.dictionaries[key] = table.extended(known, update)
