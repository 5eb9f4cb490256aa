"""Decodes the messages of stream entries into a batch that can be stored."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain.delivery import envelopes, topics
from iotistica.domain.delivery.key_compaction import NeedsDictionary
from iotistica.domain.delivery.topics import Route
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.labels import clean_label
from iotistica.errors import InvalidMessage
from iotistica.ingest.batch import EntryProgress, MessageKey, ReadingsBatch
from iotistica.ingest.dictionary_cache import DictionaryCache
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import dead_letters
from iotistica.storage.delivery.acknowledgement import ParkedMessage
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.ledger import EntryOutcome
from iotistica.storage.delivery.streams import Entry, EntryKey
from iotistica.storage.telemetry import partitions

ROWS_PER_TRANSACTION: Final = 40_000  # readings in one transaction; the last message can exceed it
YIELD_SECONDS: Final = 0.01  # seconds of decoding after which other tasks run
NO_LIMIT: Final = 1 << 30


class Decoder:
    """Decodes messages; shared by the workers of a process."""

    def __init__(self, directory: Directory, dictionaries: DictionaryCache, *, retention_days: int) -> None:
        self._directory = directory
        self._dictionaries = dictionaries
        self._retention_us = retention_days * partitions.DAY_US

    async def decode(
        self,
        entries: Sequence[Entry],
        progress: Mapping[EntryKey, EntryProgress],
        unstorable: Mapping[MessageKey, str],
        most: int = NO_LIMIT,
    ) -> ReadingsBatch:
        """Decode the next messages of these entries, in order.

        Stops after `most` messages, or when the batch holds `ROWS_PER_TRANSACTION` readings.
        Messages in `unstorable` become dead letters, with the reason given there. Of messages that were committed
        before, only those that were not stored are produced again, because they may not have been written yet.
        """
        batch, yielded = ReadingsBatch(), time.monotonic()
        agents = {route.agent for entry in entries for topic, _ in entry.messages if (route := _route(topic))}
        owners = await self._directory.owners(agents)
        for entry in entries:
            key = entry.key
            at = progress[key].copy() if key in progress else EntryProgress()
            first, dead, parked = max(at.before.messages, at.seen), [], []
            while at.seen < len(entry.messages) and batch.found < ROWS_PER_TRANSACTION and batch.messages < most:
                number = at.seen
                at.seen += 1
                if number < at.before.messages:
                    self._again(entry, number, owners, at)
                    continue
                if time.monotonic() - yielded > YIELD_SECONDS:
                    await asyncio.sleep(0)
                    yielded = time.monotonic()
                not_stored: NewDeadLetter | ParkedMessage | None
                if unstorable and (key, number) in unstorable:
                    not_stored = dead_letters.of_message(entry, number, "refused", unstorable[key, number])
                else:
                    try:
                        not_stored = self._add_now(batch, entry, number, owners)
                    except NeedsDictionary as exc:
                        not_stored = await self._add_later(batch, entry, number, owners, exc.version)
                if not_stored is None:
                    batch.messages += 1
                    batch.last = key, number
                elif isinstance(not_stored, ParkedMessage):
                    at.parked.append(not_stored)
                    parked.append(number)
                else:
                    at.letters.append(not_stored)
                    dead.append(number)
                    batch.dead[not_stored.reason] += 1
                    if not_stored.reason == "internal_error":
                        batch.faults[entry.tenant] += 1
                    elif (key, number) in unstorable:
                        batch.unstorable[entry.tenant] += 1
            if at.seen > first:
                batch.entries.append(EntryOutcome(*key, first, at.seen - first, dead, parked))
            batch.progress[key] = at
            if at.seen < len(entry.messages):
                break
        return batch

    def _again(self, entry: Entry, number: int, owners: Mapping[UUID, TenantId], at: EntryProgress) -> None:
        """Produce a committed message again if it was dead-lettered or parked when it was committed."""
        topic, payload = entry.messages[number]
        received = entry.received + number
        if number in at.before.dead:
            try:
                not_stored = self._add_now(ReadingsBatch(), entry, number, owners)
            except NeedsDictionary:
                not_stored = None
            at.letters.append(
                not_stored or dead_letters.of_message(entry, number, "refused", "its content could not be stored")
            )
        elif number in at.before.parked and (route := _route(topic)):
            at.parked.append(ParkedMessage(topic, payload, received, route.agent, self._version(payload), -1))

    @staticmethod
    def _version(payload: bytes) -> int:
        try:
            envelopes.parse_readings(payload, protocol="", received=0, retention_us=0)
        except NeedsDictionary as exc:
            return exc.version
        except InvalidMessage:
            return 0
        return 0

    async def _add_later(
        self, batch: ReadingsBatch, entry: Entry, number: int, owners: Mapping[UUID, TenantId], version: int
    ) -> NewDeadLetter | ParkedMessage | None:
        """Refresh the dictionary of a message and add its readings; park the message if keys are still missing."""
        topic, payload = entry.messages[number]
        agent = topics.route(topic).agent
        if await self._dictionaries.refresh(entry.tenant, agent, version):
            try:
                return self._add_now(batch, entry, number, owners)
            except NeedsDictionary:
                pass
        revision = self._dictionaries.revision(agent, version)
        return ParkedMessage(topic, payload, entry.received + number, agent, version, revision)

    def _add_now(
        self, batch: ReadingsBatch, entry: Entry, number: int, owners: Mapping[UUID, TenantId]
    ) -> NewDeadLetter | None:
        """Add the readings of one message; returns the message as a dead letter if it cannot be decoded.

        Raises `NeedsDictionary` if its keys are compacted with a dictionary that is not in the cache.
        """
        topic, payload = entry.messages[number]
        received = entry.received + number  # the intake's time stamp: 1 us apart within an entry
        try:
            route = topics.route(topic)
            if owners.get(route.agent) != entry.tenant:
                return dead_letters.of_message(entry, number, "unknown_agent", "")
            if not route.is_read:
                return dead_letters.of_message(entry, number, "unknown_topic", topics.why_unknown(route.subtopic))
            if route.subtopic == b"metrics":
                parsed = envelopes.parse_system_metrics(payload, received=received, retention_us=self._retention_us)
            else:
                parsed = envelopes.parse_readings(
                    payload,
                    protocol=clean_label(topics.protocol_of(route.subtopic)) or "unknown",
                    received=received,
                    retention_us=self._retention_us,
                    expanders=self._dictionaries.expanders_of(route.agent),
                )
        except NeedsDictionary:
            raise
        except InvalidMessage as exc:
            return dead_letters.of_message(entry, number, exc.code, exc.detail)
        except Exception:  # noqa: BLE001 a bug in decoding must cost only this message
            logger.opt(exception=True).error("a message could not be decoded")
            return dead_letters.of_message(entry, number, "internal_error", "")
        batch.add(entry.tenant, route.agent, parsed, received)
        return None


def _route(topic: bytes) -> Route | None:
    try:
        return topics.route(topic)
    except InvalidMessage:
        return None
