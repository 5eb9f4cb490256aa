"""Imports readings from a file with the code that stores all readings: repeating an import changes nothing."""

import asyncio
import csv
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.delivery.envelopes import ParsedPayload
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.import_rows import columns, reading_of
from iotistica.domain.telemetry.readings import PayloadContext
from iotistica.errors import Invalid, InvalidMessage
from iotistica.ingest import batch_transaction
from iotistica.ingest.batch import ReadingsBatch
from iotistica.ingest.series_cache import SeriesCache
from iotistica.storage.agents.directory import Directory
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import partitions

ROWS: Final = 10_000  # rows in a transaction
SHOWN: Final = 10  # rejected rows that are reported one by one
LONGEST: Final = 200  # characters of the reason of each
Row = Mapping[str, Any]


class ImportResult(msgspec.Struct):
    """Counts of rows so far: rows == stored + duplicate + rejected; `texts` rows have a text that is not a number.

    `bad` lists the first rejected rows: row number, counted from 1, and reason.
    """

    rows: int = 0
    stored: int = 0
    duplicate: int = 0
    conflict: int = 0
    texts: int = 0
    rejected: dict[str, int] = {}
    bad: list[tuple[int, str]] = []


async def import_file(
    database: Database,
    path: Path,
    tenant: TenantId,
    agent: UUID,
    *,
    protocol: str,
    retention_days: int,
    on_progress: Callable[[ImportResult], None],
) -> ImportResult:
    """Store the rows of a CSV, Arrow or Parquet file; raises `Invalid`.

    `on_progress` is called after each transaction.
    """
    outcome, series_cache, directory = ImportResult(rejected={}), SeriesCache(corrects=False), Directory(database)
    rows = _rows(path)
    while chunk := await asyncio.to_thread(_next_rows, rows, outcome):
        now = time.time_ns() // 1000
        context = PayloadContext(protocol=protocol, received=now, oldest=now - retention_days * partitions.DAY_US)
        batch = ReadingsBatch()
        batch.add(tenant, agent, _parse(chunk, context, outcome), now)
        await partitions.create(database, batch.days())
        stored = await batch_transaction.store(database, series_cache, batch, await directory.tenants())
        outcome.rows += batch.counts[agent].found
        outcome.stored += stored.stored
        outcome.duplicate += stored.duplicate
        outcome.conflict += stored.conflict
        for (_, _, reason), count in batch.rejections.items():
            outcome.rejected[reason] = outcome.rejected.get(reason, 0) + count
        on_progress(outcome)
    return outcome


def _next_rows(rows: Iterator[Row], outcome: ImportResult) -> list[Row]:
    try:
        return list(itertools.islice(rows, ROWS))
    except Invalid as exc:
        if not outcome.rows:
            raise
        raise Invalid(
            f"{exc} The first {outcome.rows:,} rows are stored. Correct the file and import it again."
        ) from exc


def _parse(rows: list[Row], context: PayloadContext, outcome: ImportResult) -> ParsedPayload:
    parsed = ParsedPayload([], {})
    for number, row in enumerate(rows, outcome.rows + 1):
        try:
            reading = reading_of(row, context)
        except InvalidMessage as exc:
            parsed.reject(exc.code)
            if len(outcome.bad) < SHOWN:
                outcome.bad.append((number, _printable(f"{exc.code} {exc.detail}")))
            continue
        outcome.texts += reading.value is None and bool(row.get("value")) and isinstance(row["value"], str)
        parsed.readings.append(reading)
    return parsed


def _printable(text: str) -> str:
    """Return text from a file without control characters and shortened, so that it is safe on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST]).strip()


def _rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, with the column names that the platform uses."""
    kind = path.suffix.lower()
    readers = {".csv": _csv, ".parquet": _parquet, ".arrow": _arrow, ".arrows": _arrow, ".feather": _arrow}
    if kind not in readers:
        raise Invalid(f"Cannot import {path.name}: the name must end in one of {', '.join(readers)}.")
    try:
        yield from readers[kind](path)
    except (OSError, ValueError, csv.Error) as exc:  # pyarrow's errors are subclasses of these
        raise Invalid(f"Cannot read {path.name}: {exc}.") from exc
    except InvalidMessage as exc:
        raise Invalid(f"The file {path.name} has no column {exc.detail}.") from exc
    except ImportError as exc:
        raise Invalid(f"Reading {path.name} needs pyarrow. Install `iotistica[parquet]`.") from exc


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        names = columns(list(lines.fieldnames or []))
        for line in lines:
            yield {name: line.get(column) for name, column in names.items()}


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from _batches(file.iter_batches(batch_size=ROWS), file.schema_arrow.names)


def _arrow(path: Path) -> Iterator[Row]:
    from pyarrow import ipc, memory_map

    with memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":  # the file format; without this magic number it is the stream format
            file = ipc.open_file(source)
            yield from _batches(map(file.get_batch, range(file.num_record_batches)), file.schema.names)
            return
        source.seek(0)
        reader = ipc.open_stream(source)
        yield from _batches(reader, reader.schema.names)


def _batches(batches: Any, header: list[str]) -> Iterator[Row]:
    names = columns(list(header))
    for batch in batches:
        for row in batch.to_pylist():
            yield {name: _plain(row[column]) for name, column in names.items()}


def _plain(value: Any) -> Any:
    """Return a time as ISO 8601 text, any other value unchanged."""
    return value.isoformat() if hasattr(value, "isoformat") else value
