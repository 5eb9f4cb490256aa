"""Reads tables from files of any kind that people have; the kind is recognised by content, not by name."""

import csv
import gzip
import io
import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import msgspec

from iotistica.domain import codec, payload_formats
from iotistica.errors import Invalid, InvalidMessage

Kind = Literal["CSV", "JSON lines", "Parquet", "Arrow"]
SAMPLE: Final = 64 << 10  # bytes from which kind, encoding and separator are recognised
ROWS: Final = 10_000  # rows of a Parquet batch
LINE: Final = 16 << 20  # characters of a line
_SEPARATORS: Final = ",;\t|"
_GZIP: Final = b"\x1f\x8b"
_BOMS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_TEXTS: Final = ("csv", "text", "latin-1", "line-protocol", "form", None)
"""Formats that can be a table in text; None is JSON, quoted cells, or a table that begins with a bracket."""
_SAYS_SEPARATOR: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be read, and why."""

    reason: str
    detail: str


class Document(msgspec.Struct, frozen=True):
    """A line of JSON that is not a row of a table: a message as devices send it."""

    payload: bytes


class Header(msgspec.Struct, frozen=True):
    """The names of the columns of the rows that follow; a file can have several."""

    columns: tuple[str, ...]


Item = Header | BadRow | Document | Mapping[str, Any]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An open file: what it is, and what it contains."""

    kind: Kind
    detail: str
    items: Iterator[Item]
    raw: BinaryIO
    """The file on disk, whose position shows the progress."""


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file for the block; raises `Invalid` for a kind that is not known or cannot be read."""
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP
            raw.seek(0)
            content = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzip else raw
            head = content.read(SAMPLE)
            content.seek(0)
            with _opened(path, content, head, raw, is_gzip=is_gzip) as file:
                yield file
    except (OSError, EOFError, ValueError, csv.Error) as exc:  # pyarrow's errors are subclasses of these
        raise Invalid(f"Cannot read {path.name}: {exc}.") from exc
    except ImportError as exc:
        raise Invalid(f"Reading {path.name} needs pyarrow. Install `iotistica[parquet]`.") from exc


@contextmanager
def _opened(path: Path, content: BinaryIO, head: bytes, raw: BinaryIO, *, is_gzip: bool) -> Iterator[Opened]:
    packed = ", gzip" if is_gzip else ""
    is_parquet, is_arrow = head[:4] == b"PAR1", head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff"
    if is_parquet or is_arrow:
        with _seekable(content, is_gzip=is_gzip) as source:
            items = _parquet(source) if is_parquet else _arrow(source)
            yield Opened(
                kind="Parquet" if is_parquet else "Arrow", detail=packed.lstrip(", "), items=items, raw=raw
            )
        return
    encoding = _encoding(head)
    text = head.decode(encoding, "replace").lstrip("\ufeff \r\n\t")
    with io.TextIOWrapper(content, encoding=encoding, errors="replace", newline="") as lines:
        if text[:1] in ("{", "["):
            yield Opened(kind="JSON lines", detail=encoding + packed, items=_json_lines(lines), raw=raw)
            return
        name = "an empty file" if not text else payload_formats.format_of(head)
        if not encoding.startswith("utf-16") and not encoding.startswith("utf-32") and name not in _TEXTS:
            raise Invalid(
                f"Cannot import {path.name}: it looks like {name}. It must be CSV, JSON lines, Parquet or Arrow."
            )
        separator = _separator(text)
        shown = {"\t": "tab"}.get(separator, separator)
        yield Opened(
            kind="CSV", detail=f"{encoding}, separator {shown}{packed}", items=_csv(lines, separator), raw=raw
        )


def _encoding(head: bytes) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if head[1:2] == b"\0" or head[:1] == b"\0":
        return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        if len(head) < SAMPLE or exc.start < SAMPLE - 4:  # a character may be cut at the end of the sample
            return "cp1252"
    return "utf-8"


def _separator(text: str) -> str:
    """Return the separator that splits the first lines into the most, and equally many, cells."""
    if match := _SAYS_SEPARATOR.match(text):
        return match[1]
    lines = [line for line in text.splitlines()[:50] if line.strip() and not line.startswith("#")][:20]
    if not lines:
        return ","

    def quality(separator: str) -> tuple[int, int]:
        counts = [len(next(csv.reader([line], delimiter=separator))) for line in lines]
        return sum(count == counts[0] for count in counts) if counts[0] > 1 else 0, counts[0]

    return max(_SEPARATORS, key=quality)


def _csv(lines: io.TextIOBase, separator: str) -> Iterator[Item]:
    """Yield header and rows; lines of `#` begin another table, and `sep=;` says nothing but the separator."""
    header: tuple[str, ...] | None = None
    annotated = False
    for cells in csv.reader(lines, delimiter=separator):
        if not any(cells):
            header = None if annotated else header
            continue
        if cells[0].startswith("#"):
            header, annotated = None, True
            continue
        if header is None:
            if _SAYS_SEPARATOR.fullmatch(separator.join(cells)):
                continue
            header = tuple(cell.strip() for cell in cells)
            yield Header(header)
        elif len(cells) != len(header):
            yield BadRow("bad_row", f"it has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield dict(zip(header, cells, strict=True))


def _json_lines(lines: io.TextIOBase) -> Iterator[Item]:
    """Yield a table where each line is a flat object, else the lines as messages; an array counts by members."""
    first = lines.readline(LINE).lstrip("\ufeff")
    if first.lstrip()[:1] == "[":
        members = msgspec.json.decode((first + lines.read(LINE)).encode("utf-8", "replace"), type=list[msgspec.Raw])
        texts: Iterator[bytes] = (bytes(member) for member in members)
    else:
        texts = (line.encode("utf-8", "replace") for line in itertools.chain([first], lines) if line.strip())
    known: dict[str, None] = {}  # the columns so far, in their order
    is_table: bool | None = None
    for text in texts:
        try:
            row = codec.decode(text, False, object, exact=True)
        except InvalidMessage as exc:
            yield BadRow(exc.code, exc.detail)
            continue
        if is_table is None:
            is_table = isinstance(row, dict) and not any(
                isinstance(cell, (dict, list)) for name, cell in row.items() if name != "extra"
            )
        if not is_table or not isinstance(row, dict):
            yield Document(text)
            continue
        if not row.keys() <= known.keys():
            known |= dict.fromkeys(row)
            yield Header(tuple(known))
        yield {name: _cell(cell) for name, cell in row.items()}


def _cell(cell: Any) -> Any:
    return msgspec.json.encode(cell).decode() if isinstance(cell, (dict, list)) else cell


@contextmanager
def _seekable(content: BinaryIO, *, is_gzip: bool) -> Iterator[BinaryIO]:
    """Give a file in which one can jump; a compressed one is inflated to a temporary file."""
    if not is_gzip:
        yield content
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(content, file)
        file.seek(0)
        yield cast(BinaryIO, file)


def _parquet(source: BinaryIO) -> Iterator[Item]:
    from pyarrow import parquet

    with parquet.ParquetFile(source) as file:
        yield Header(tuple(file.schema_arrow.names))
        for batch in file.iter_batches(batch_size=ROWS):
            yield from _batch_rows(batch)


def _arrow(source: BinaryIO) -> Iterator[Item]:
    from pyarrow import ipc

    is_file = source.read(6) == b"ARROW1"  # without this magic number it is the stream format
    source.seek(0)
    if is_file:
        file = ipc.open_file(source)
        yield Header(tuple(file.schema.names))
        batches: Iterator[Any] = map(file.get_batch, range(file.num_record_batches))
    else:
        reader = ipc.open_stream(source)
        yield Header(tuple(reader.schema.names))
        batches = iter(reader)
    for batch in batches:
        yield from _batch_rows(batch)


def _batch_rows(batch: Any) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    fields: Sequence[Any] = batch.schema
    columns = []
    for number, field in enumerate(fields):
        column = batch.column(number)
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":  # Python has no nanoseconds
            column = column.cast(pa.timestamp("us", tz=field.type.tz), safe=False)
        columns.append(column)
    names = [field.name for field in fields]
    for start in range(0, batch.num_rows, ROWS):
        part = [column.slice(start, ROWS).to_pylist() for column in columns]
        for cells in zip(*part, strict=True):
            yield dict(zip(names, cells, strict=True))
