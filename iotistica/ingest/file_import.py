"""Imports readings from a file with the code that stores all readings: repeating an import changes nothing."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from iotistica.domain.delivery import envelopes
from iotistica.domain.delivery.envelopes import ParsedPayload
from iotistica.domain.delivery.key_compaction import NeedsDictionary
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry import import_layout
from iotistica.domain.telemetry.import_layout import Layout
from iotistica.domain.telemetry.import_rows import raw_rows, reading_of
from iotistica.domain.telemetry.import_values import DateOrder
from iotistica.domain.telemetry.readings import PayloadContext, Reading
from iotistica.errors import Invalid, InvalidMessage
from iotistica.ingest import batch_transaction, import_files
from iotistica.ingest.batch import ReadingsBatch
from iotistica.ingest.import_files import Opened
from iotistica.ingest.import_items import BadRow, Document, Header, Item
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage.agents.directory import Directory
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import partitions

READINGS: Final = 10_000  # readings in a transaction; the last row can exceed it
SAMPLES: Final = 1000  # rows from which decimal mark and order of dates are recognised
LAYOUTS: Final = 20  # different layouts that a preview lists
SHOWN: Final = 10  # rejected rows that are reported one by one
LONGEST: Final = 200  # characters of the reason of each


class ImportOptions(NamedTuple):
    """What the caller says about a file; `mapped` overrules the meaning of columns."""

    protocol: str
    retention_days: int
    mapped: Mapping[str, str] = {}
    date_order: DateOrder | None = None
    zone: ZoneInfo | None = None


class ImportResult(msgspec.Struct):
    """Counts so far: readings == stored + duplicate + rejected; `texts` have a text that is not a number.

    `bad` lists the first rejected rows: row number, counted from 1, and reason.
    """

    rows: int = 0
    readings: int = 0
    stored: int = 0
    duplicate: int = 0
    conflict: int = 0
    texts: int = 0
    rejected: dict[str, int] = {}
    bad: list[tuple[int, str]] = []

    def note(self, row: int, reason: str) -> None:
        """List a rejected row, unless enough are listed; the text comes from the file."""
        if len(self.bad) < SHOWN:
            self.bad.append((row, "".join(c if c.isprintable() else "?" for c in reason[:LONGEST]).strip()))


class Parser:
    """Turns the items of a file into readings; keeps the layout of the current table."""

    def __init__(self, options: ImportOptions) -> None:
        self.layouts: list[Layout] = []
        self.result = ImportResult(rejected={}, bad=[])
        self._options = options
        self._layout: Layout | None = None

    def chunks(self, file: Opened) -> Iterator[ParsedPayload]:
        """Yield the readings of the file in chunks of about `READINGS`; raises `Invalid`."""
        parsed = ParsedPayload([], {})
        for item in self._items(file.items):
            self.result.rows += 1
            self._add(item, parsed)
            if len(parsed.readings) + sum(parsed.rejected.values()) >= READINGS:
                yield parsed
                parsed = ParsedPayload([], {})
        if parsed.readings or parsed.rejected:
            yield parsed

    def _items(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield all items but the headers, whose layout is understood with the rows that follow."""
        ahead: deque[Item] = deque()
        while (item := ahead.popleft() if ahead else next(items, None)) is not None:
            if not isinstance(item, Header):
                yield item
                continue
            ahead.extend(itertools.islice(items, SAMPLES - len(ahead)))
            rows = itertools.takewhile(lambda one: not isinstance(one, Header), ahead)
            try:
                self._layout = import_layout.understand(
                    item.columns,
                    [row for row in rows if not isinstance(row, (BadRow, Document, Header))],
                    mapped=self._options.mapped,
                    date_order=self._options.date_order,
                )
            except InvalidMessage as exc:
                raise Invalid(f"The file has no column {exc.detail}.") from exc
            if len(self.layouts) < LAYOUTS and self._layout not in self.layouts:
                self.layouts.append(self._layout)

    def _add(self, item: Item, parsed: ParsedPayload) -> None:
        now = time.time_ns() // 1000
        oldest = now - self._options.retention_days * partitions.DAY_US
        context = PayloadContext(protocol=self._options.protocol, received=now, oldest=oldest)
        if isinstance(item, BadRow):
            self._reject(parsed, item.reason, item.detail)
        elif isinstance(item, Document):
            self._add_message(item, parsed, context)
        elif self._layout is not None and not isinstance(item, Header):
            try:
                rows = list(raw_rows(item, self._layout, self._options.zone))
            except InvalidMessage as exc:
                self._reject(parsed, exc.code, exc.detail)
                return
            for row in rows:
                try:
                    self._keep(parsed, reading_of(row, context))
                except InvalidMessage as exc:
                    self._reject(parsed, exc.code, exc.detail)

    def _add_message(self, item: Document, parsed: ParsedPayload, context: PayloadContext) -> None:
        """Add the readings of a line that is a message as devices send it; history without a time is rejected."""
        try:
            found = envelopes.parse_readings(
                item.payload,
                protocol=context.protocol,
                received=context.received,
                retention_us=context.received - context.oldest,
            )
        except (InvalidMessage, NeedsDictionary) as exc:
            code, detail = (exc.code, exc.detail) if isinstance(exc, InvalidMessage) else ("no_dictionary", "")
            self._reject(parsed, code, detail)
            return
        for reading in found.readings:
            if reading.time == context.received:
                self._reject(parsed, "bad_time", "the reading has no time")
            else:
                self._keep(parsed, reading)
        for reason, times in found.rejected.items():
            for _ in range(times):
                self._reject(parsed, reason, "")

    def _keep(self, parsed: ParsedPayload, reading: Reading) -> None:
        self.result.texts += reading.value is None and bool(reading.extra and "text" in reading.extra)
        parsed.readings.append(reading)

    def _reject(self, parsed: ParsedPayload, reason: str, detail: str) -> None:
        parsed.reject(reason)
        self.result.note(self.result.rows, f"{reason} {detail}")


async def import_file(
    database: Database,
    path: Path,
    tenant: TenantId,
    agent: UUID,
    options: ImportOptions,
    *,
    on_progress: Callable[[ImportResult, int], None],
) -> ImportResult:
    """Store the readings of a file of any kind that `import_files` knows; raises `Invalid`.

    `on_progress` is called after each transaction with the bytes of the file that have been read.
    """
    parser, series_cache, directory = Parser(options), SeriesCache(corrects=False), Directory(database)
    result = parser.result
    with import_files.opened(path) as file:
        chunks = parser.chunks(file)
        while parsed := await asyncio.to_thread(_next, chunks, result):
            batch = ReadingsBatch()
            batch.add(tenant, agent, parsed, time.time_ns() // 1000)
            await partitions.create(database, batch.days())
            stored = await batch_transaction.store(database, series_cache, batch, await directory.tenants())
            result.readings += batch.counts[agent].found
            result.stored += stored.stored
            result.duplicate += stored.duplicate
            result.conflict += stored.conflict
            for (_, _, reason), count in batch.rejections.items():
                result.rejected[reason] = result.rejected.get(reason, 0) + count
            on_progress(result, file.raw.tell())
    return result


def _next(chunks: Iterator[ParsedPayload], result: ImportResult) -> ParsedPayload | None:
    try:
        return next(chunks, None)
    except (Invalid, *import_files.UNREADABLE) as exc:
        if not result.readings:
            raise
        raise Invalid(
            f"{str(exc).rstrip('.')}. The first {result.readings:,} readings are stored. Correct the file and"
            " import it again."
        ) from exc


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What was understood of a file, without storing anything."""

    kind: str
    detail: str
    layouts: list[Layout]
    first: list[Reading]
    result: ImportResult
    series: int
    """Different series, counted up to `SERIES`."""
    units: dict[str, str]
    """The units of the first series."""
    start: int | None
    end: int | None
    """The first and the last time in us since the epoch; None without readings."""


SERIES: Final = 100_000
FIRST: Final = 8  # readings that a preview shows


def preview(path: Path, options: ImportOptions, *, on_progress: Callable[[ImportResult, int], None]) -> Preview:
    """Read a whole file as an import would, and return what was understood; raises `Invalid`."""
    parser = Parser(options)
    first: list[Reading] = []
    names: set[str] = set()
    units: dict[str, str] = {}
    times: list[int] = []
    with import_files.opened(path) as file:
        for parsed in parser.chunks(file):
            parser.result.readings += len(parsed.readings) + sum(parsed.rejected.values())
            for reason, count in parsed.rejected.items():
                parser.result.rejected[reason] = parser.result.rejected.get(reason, 0) + count
            first += parsed.readings[: FIRST - len(first)]
            for reading in parsed.readings:
                if len(names) < SERIES and reading.metric_name not in names:
                    names.add(reading.metric_name)
                    if reading.unit and len(units) < FIRST:
                        units[reading.metric_name] = reading.unit
            span = [reading.time for reading in parsed.readings] + times
            times = [min(span), max(span)] if span else []
            on_progress(parser.result, file.raw.tell())
        kind, detail = file.kind, file.detail
    return Preview(
        kind=kind,
        detail=detail,
        layouts=parser.layouts,
        first=first,
        result=parser.result,
        series=len(names),
        units=units,
        start=times[0] if times else None,
        end=times[-1] if times else None,
    )
