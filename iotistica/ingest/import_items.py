"""What a file to import consists of: headers, rows, messages, and rows that cannot be read."""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from iotistica.errors import Invalid

LINE: Final = 16 << 20  # characters of a line


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


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of columns with a number behind those that repeat, so that no column hides another."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 or not name else f"{name} {seen[name]}")
    return tuple(distinct)


def bounded(lines: io.TextIOBase) -> Iterator[str]:
    """Yield the lines; raises `Invalid` for one that is too long to be held."""
    while line := lines.readline(LINE + 1):
        if len(line) > LINE:
            raise Invalid(f"A line has more than {LINE >> 20} Mi characters.")
        yield line
