"""Reads JSON lines: a table where the lines are flat objects, else messages as devices send them."""

import io
import itertools
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from iotistica.domain import codec
from iotistica.errors import Invalid, InvalidMessage
from iotistica.ingest.import_items import LINE, BadRow, Document, Header, Item, bounded

BLOCK: Final = 1000  # lines whose columns are looked at together
COLUMNS: Final = 10_000  # columns of a table
CHANGES: Final = 20  # times that further columns appear


def _documents(lines: io.TextIOBase) -> Iterator[bytes]:
    """Yield the JSON documents of a file: its lines, or the members of the one array that it consists of."""
    filled = (line for line in bounded(lines) if line.strip("\ufeff \r\n\t\0"))
    head = list(itertools.islice(filled, 2))
    first = head[0].encode("utf-8", "replace") if head else b""
    if first.lstrip(b"\xef\xbb\xbf \t")[:1] != b"[" or (len(head) == 2 and _is_json(first)):
        for line in itertools.chain(head, filled):
            yield line.encode("utf-8", "replace")
        return
    text = "".join(head) + lines.read(LINE)
    if lines.read(1):
        raise Invalid(
            f"The file is one JSON array of more than {LINE >> 20} Mi characters: write one object a line."
        )
    members = msgspec.json.decode(codec.strip(text.encode("utf-8", "replace")), type=list[msgspec.Raw])
    yield from (bytes(member) for member in members)


def _is_json(text: bytes) -> bool:
    try:
        codec.decode(text, False, object)
    except InvalidMessage:
        return False
    return True


def read(lines: io.TextIOBase) -> Iterator[Item]:
    """Yield a table where the first line is a flat object, else the lines as messages."""
    known: dict[str, None] = {}  # the columns so far, in their order
    is_table: bool | None = None
    changes = 0
    documents = _documents(lines)
    while block := list(itertools.islice(documents, BLOCK)):
        rows = [(text, _decoded(text)) for text in block]
        first = next((row for _, row in rows if not isinstance(row, BadRow)), None)
        if is_table is None and first is not None:
            is_table = isinstance(first, dict) and not any(
                isinstance(cell, (dict, list)) for name, cell in first.items() if name != "extra"
            )
        names = dict.fromkeys(name for _, row in rows if is_table and isinstance(row, dict) for name in row)
        if not names.keys() <= known.keys():
            known, changes = known | names, changes + 1
            if len(known) > COLUMNS or changes > CHANGES:
                raise Invalid(f"The file has too many columns, or they change more than {CHANGES} times.")
            yield Header(tuple(known))
        for text, row in rows:
            if isinstance(row, BadRow):
                yield row
            elif is_table and isinstance(row, dict):
                yield {name: _cell(cell) for name, cell in row.items()}
            else:
                yield Document(text)


def _decoded(text: bytes) -> Any:
    try:
        return codec.decode(text, False, object, exact=True)
    except InvalidMessage as exc:
        return BadRow(exc.code, exc.detail)


def _cell(cell: Any) -> Any:
    return msgspec.json.encode(cell).decode() if isinstance(cell, (dict, list)) else cell
