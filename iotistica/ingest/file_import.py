"""Brings history in from a file, on the way that all readings take: sent again, it changes nothing."""

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

ROWS: Final = 10_000  # in a transaction
SHOWN: Final = 10  # rejected rows that are told of
LONGEST: Final = 200  # characters of the reason of each
Row = Mapping[str, Any]


class ImportResult(msgspec.Struct):
    """Rows so far: rows == stored + duplicate + rejected; `texts` of them have a text that is no number.

    `bad` are the first rows that were rejected, each counted from 1 with its reason.
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
    told: Callable[[ImportResult], None],
) -> ImportResult:
    """Store the rows of a CSV, Arrow or Parquet file; `told` hears how far it is. Raises `Invalid`."""
    outcome, series_cache, directory = ImportResult(rejected={}), SeriesCache(corrects=False), Directory(database)
    rows = _rows(path)
    while some := await asyncio.to_thread(_some, rows, outcome):
        now = time.time_ns() // 1000
        context = PayloadContext(protocol=protocol, received=now, oldest=now - retention_days * partitions.DAY_US)
        batch = ReadingsBatch()
        batch.add(tenant, agent, _found(some, context, outcome), now)
        await partitions.create(database, batch.days())
        stored = await batch_transaction.store(database, series_cache, batch, await directory.tenants())
        outcome.rows += batch.counts[agent].found
        outcome.stored += stored.stored
        outcome.duplicate += stored.duplicate
        outcome.conflict += stored.conflict + batch.conflicts
        for (_, _, reason), count in batch.rejections.items():
            outcome.rejected[reason] = outcome.rejected.get(reason, 0) + count
        told(outcome)
    return outcome


def _some(rows: Iterator[Row], outcome: ImportResult) -> list[Row]:
    try:
        return list(itertools.islice(rows, ROWS))
    except Invalid as exc:
        if not outcome.rows:
            raise
        raise Invalid(f"{exc}; the {outcome.rows:,} rows before are stored: mend it and import it again") from exc


def _found(rows: list[Row], context: PayloadContext, outcome: ImportResult) -> ParsedPayload:
    found = ParsedPayload([], {})
    for number, row in enumerate(rows, outcome.rows + 1):
        try:
            reading = reading_of(row, context)
        except InvalidMessage as exc:
            found.reject(exc.code)
            if len(outcome.bad) < SHOWN:
                outcome.bad.append((number, _shown(f"{exc.code} {exc.detail}")))
            continue
        outcome.texts += reading.value is None and bool(row.get("value")) and isinstance(row["value"], str)
        found.readings.append(reading)
    return found


def _shown(text: str) -> str:
    """What a file says, so that a terminal takes it for text."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST]).strip()


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a file by our names of its columns."""
    kind = path.suffix.lower()
    readers = {".csv": _csv, ".parquet": _parquet, ".arrow": _arrow, ".arrows": _arrow, ".feather": _arrow}
    if kind not in readers:
        raise Invalid(f"{path.name}: the name must end in {', '.join(readers)}")
    try:
        yield from readers[kind](path)
    except (OSError, ValueError, csv.Error) as exc:  # of which pyarrow's errors are kinds
        raise Invalid(f"cannot read {path.name}: {exc}") from exc
    except InvalidMessage as exc:
        raise Invalid(f"{path.name} has no column {exc.detail}") from exc
    except ImportError as exc:
        raise Invalid(f"{path.name} needs pyarrow: install `iotistica[parquet]`") from exc


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        names = columns(list(lines.fieldnames or []))
        for line in lines:
            yield {ours: line.get(theirs) for ours, theirs in names.items()}


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from _batches(file.iter_batches(batch_size=ROWS), file.schema_arrow.names)


def _arrow(path: Path) -> Iterator[Row]:
    from pyarrow import ipc, memory_map

    with memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":  # a file, which is a stream with an index
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
            yield {ours: _plain(row[theirs]) for ours, theirs in names.items()}


def _plain(value: Any) -> Any:
    """A time as text; everything else as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value
