"""Reads Parquet and Arrow files, and Arrow streams."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

from iotistica.ingest.import_items import Header, Item, distinct

ROWS: Final = 10_000  # rows of a Parquet batch


def parquet_rows(source: BinaryIO) -> Iterator[Item]:
    """Yield the header and the rows of a Parquet file."""
    from pyarrow import parquet

    with parquet.ParquetFile(source) as file:
        yield Header(distinct(file.schema_arrow.names))
        for batch in file.iter_batches(batch_size=ROWS):
            yield from _batch_rows(batch)


def arrow_rows(source: BinaryIO) -> Iterator[Item]:
    """Yield the header and the rows of an Arrow file or stream."""
    from pyarrow import ipc

    is_file = source.read(6) == b"ARROW1"  # without this magic number it is the stream format
    source.seek(0)
    if is_file:
        file = ipc.open_file(source)
        yield Header(distinct(file.schema.names))
        batches: Iterator[Any] = map(file.get_batch, range(file.num_record_batches))
    else:
        reader = ipc.open_stream(source)
        yield Header(distinct(reader.schema.names))
        batches = iter(reader)
    for batch in batches:
        yield from _batch_rows(batch)


def _batch_rows(batch: Any) -> Iterator[Mapping[str, Any]]:

    fields: Sequence[Any] = batch.schema
    columns = []
    for number, field in enumerate(fields):
        column = batch.column(number)
        if getattr(field.type, "unit", "") == "ns":  # Python has no nanoseconds
            column = column.cast(_in_microseconds(field.type), safe=False)
        columns.append(column)
    names = distinct(field.name for field in fields)
    for start in range(0, batch.num_rows, ROWS):
        part = [column.slice(start, ROWS).to_pylist() for column in columns]
        for cells in zip(*part, strict=True):
            yield dict(zip(names, cells, strict=True))


def _in_microseconds(kind: Any) -> Any:
    """Return the type of Arrow with microseconds for a timestamp, a time or a duration."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    return pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
