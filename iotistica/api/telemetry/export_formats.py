"""Converts the CSV rows of an export to CSV, Arrow or Parquet, one slice at a time."""

import csv
import io
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from iotistica.errors import Invalid
from iotistica.storage.telemetry.csv_export import COLUMNS, HEADER

Format = Literal["csv", "arrow", "parquet"]
Safe = Literal["spreadsheet"]
MEDIA: Final[dict[Format, str]] = {
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}


class Writer(Protocol):
    """Accepts slices of CSV rows and returns the bytes to send."""

    def add(self, rows: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class Csv:
    """Returns the rows unchanged, after a header line."""

    def __init__(self) -> None:
        self._head = HEADER

    def add(self, rows: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + rows

    def end(self) -> bytes:
        return self._head


class SpreadsheetCsv(Csv):
    """Returns the rows so that a spreadsheet runs none of their texts as a formula.

    A text that begins like a formula gets an apostrophe (OWASP, "CSV Injection"). Numbers stay numbers.
    """

    def add(self, rows: bytes) -> bytes:
        out = io.StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        for cells in csv.reader(io.StringIO(rows.decode(), newline="")):
            write([cell if at in _NUMBERS else _harmless(cell) for at, cell in enumerate(cells)])
        return super().add(out.getvalue().encode())


_NUMBERS: Final = frozenset(COLUMNS.index(name) for name in ("time", "value", "anomaly_score", "anomaly_threshold"))
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, also in full width, which some spreadsheets read alike."""


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip(" ").startswith(_FORMULA) else text


class _Sink(io.RawIOBase):
    """A file that keeps only what was written since the last `take`."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class Columnar:
    """Writes the record batches of an Arrow stream, or the row groups of a Parquet file."""

    def __init__(self, format_: Format) -> None:
        """Raise `Invalid` if pyarrow is not installed."""
        try:
            import pyarrow as pa
            from pyarrow import csv as arrow_csv
            from pyarrow import ipc, parquet
        except ImportError:
            raise Invalid(
                "must be csv: this server lacks pyarrow, which `iotistica[parquet]` installs", "format"
            ) from None
        kinds = dict.fromkeys(COLUMNS, pa.string())
        kinds |= {"time": pa.timestamp("us", tz="UTC")}
        kinds |= dict.fromkeys(("value", "anomaly_score", "anomaly_threshold"), pa.float64())
        schema = pa.schema(list(kinds.items()))
        self._sink = _Sink()
        self._read: Callable[[bytes], Any] = lambda rows: arrow_csv.read_csv(
            io.BytesIO(rows),
            read_options=arrow_csv.ReadOptions(
                column_names=list(COLUMNS), use_threads=False, block_size=len(rows) + 1
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
            ),
        )
        pool = pa.system_memory_pool()
        if format_ == "arrow":
            self._writer: Any = ipc.new_stream(self._sink, schema)
        else:
            self._writer = parquet.ParquetWriter(self._sink, schema, compression="zstd", memory_pool=pool)

    def add(self, rows: bytes) -> bytes:
        self._writer.write_table(self._read(rows))
        return self._sink.take()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.take()


def writer(format_: Format, safe: Safe | None = None) -> Writer:
    """Return a writer for a format; raises `Invalid`."""
    if format_ != "csv":
        if safe is not None:
            raise Invalid("is for csv: the other formats have no formulas", "safe")
        return Columnar(format_)
    return SpreadsheetCsv() if safe == "spreadsheet" else Csv()
