"""Reads tables from files of any kind that people have; the kind is recognised by content, not by name."""

import codecs
import csv
import gzip
import io
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

import msgspec

from iotistica.domain import payload_formats
from iotistica.errors import Invalid
from iotistica.ingest import columnar_files, json_lines
from iotistica.ingest.import_items import BadRow, Header, Item, bounded, distinct

Kind = Literal["CSV", "JSON lines", "Parquet", "Arrow"]
SAMPLE: Final = 64 << 10  # bytes from which kind, encoding and separator are recognised
INFLATED_PART: Final = 4 << 20  # bytes of a compressed file that are inflated at a time
FREE_BYTES: Final = 1 << 30  # of the disk that a temporary file leaves to others,
FREE_SHARE: Final = 0.05  # or this share of a small disk
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
_ANNOTATIONS: Final = ("#group", "#datatype", "#default")
_SAYS_SEPARATOR: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)


UNREADABLE: Final = (OSError, EOFError, ValueError, OverflowError, csv.Error, zlib.error)
"""What a damaged file raises; pyarrow's errors are subclasses of these."""


def _as_cp1252(exc: UnicodeError) -> tuple[str, int]:
    """Read bytes that are not UTF-8 as Windows does, instead of losing them."""
    assert isinstance(exc, UnicodeDecodeError)  # noqa: S101 registered for decoding only
    return exc.object[exc.start : exc.end].decode("cp1252", "replace"), exc.end


codecs.register_error("iotistica-cp1252", _as_cp1252)


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
    except UNREADABLE as exc:
        raise Invalid(f"Cannot read {path.name}: {exc}.") from exc
    except ImportError as exc:
        raise Invalid(f"Reading {path.name} needs pyarrow. Install `iotistica[parquet]`.") from exc


@contextmanager
def _opened(path: Path, content: BinaryIO, head: bytes, raw: BinaryIO, *, is_gzip: bool) -> Iterator[Opened]:
    packed = ", gzip" if is_gzip else ""
    is_parquet, is_arrow = head[:4] == b"PAR1", head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff"
    if is_parquet or is_arrow:
        with _seekable(content, is_gzip=is_gzip) as source:
            items = columnar_files.parquet_rows(source) if is_parquet else columnar_files.arrow_rows(source)
            yield Opened(
                kind="Parquet" if is_parquet else "Arrow", detail=packed.lstrip(", "), items=items, raw=raw
            )
        return
    encoding = _encoding(head)
    text = head.decode(encoding, "replace").lstrip("\ufeff \r\n\t")
    errors = "iotistica-cp1252" if encoding.startswith("utf-8") else "replace"
    with io.TextIOWrapper(content, encoding=encoding, errors=errors, newline="") as lines:
        if text[:1] in ("{", "["):
            yield Opened(kind="JSON lines", detail=encoding + packed, items=json_lines.read(lines), raw=raw)
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
    for cells in csv.reader(bounded(lines), delimiter=separator):
        if not any(cells):
            header = None if annotated else header
            continue
        if cells[0] in _ANNOTATIONS:
            header, annotated = None, True
            continue
        if header is None and cells[0].startswith("#"):
            continue  # a comment
        if header is None:
            if _SAYS_SEPARATOR.fullmatch(separator.join(cells)):
                continue
            header = distinct(cell.strip() for cell in cells)
            yield Header(header)
        elif annotated and "error" in header and "_value" not in header:
            raise Invalid(f"The file is an error of InfluxDB: {' '.join(cells).strip()[:200]}")
        elif len(cells) != len(header):
            yield BadRow("bad_row", f"it has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield dict(zip(header, cells, strict=True))


@contextmanager
def _seekable(content: BinaryIO, *, is_gzip: bool) -> Iterator[BinaryIO]:
    """Give a file in which one can jump; a compressed one is inflated to a temporary file."""
    if not is_gzip:
        yield content
        return
    with tempfile.TemporaryFile() as file:
        while part := content.read(INFLATED_PART):
            disk = shutil.disk_usage(tempfile.gettempdir())
            if disk.free - len(part) < min(FREE_BYTES, disk.total * FREE_SHARE):
                raise Invalid(
                    f"The inflated file does not fit on the disk of {tempfile.gettempdir()}: inflate it first, and"
                    " import the result, or set TMPDIR to a folder on a larger disk"
                )
            file.write(part)
        file.seek(0)
        yield cast(BinaryIO, file)
