"""Sequences: which messages of an agent never arrived, told by the numbers in its message ids.

A message id is `<uuid>-<ms>-<number>-<anything>`. Where the number counts on from message to message, a number
that is left out is a message that is missing. The public agent counts only within one millisecond and begins
at 0 with the next; that says nothing, and so a 0 is not kept, and a number that does not rise begins anew.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

MSG_ID: Final = re.compile(r"[0-9a-fA-F-]{36}-(\d{1,15})-(\d{1,15})(?:-|$)")


LATEST: Final = 4_102_444_800_000  # ms since the epoch: the year 2100


class MessageNumber(NamedTuple):
    """One message: when its id was made, in ms since the epoch, and its number."""

    ms: int
    number: int


class Run(NamedTuple):
    """Messages without a gap between them, both ends included."""

    first_ms: int
    last_ms: int
    first: int
    last: int


class Gap(NamedTuple):
    """Numbers that never arrived, both ends included, and the messages around them."""

    first: int
    last: int
    after: datetime
    before: datetime


def number_of(msg_id: object) -> MessageNumber | None:
    """The number in a message id; None if it has none that says something."""
    found = MSG_ID.match(msg_id) if isinstance(msg_id, str) and len(msg_id) <= 100 else None
    if not found or int(found[2]) == 0 or int(found[1]) > LATEST:
        return None
    return MessageNumber(int(found[1]), int(found[2]))


def join_runs(runs: Iterable[Run], marks: Iterable[MessageNumber]) -> list[Run]:
    """The runs that these and the new messages make, in the order of time; whatever arrives when."""
    pieces = {*runs, *(Run(ms, ms, number, number) for ms, number in marks)}
    out: list[Run] = []
    for run in sorted(pieces, key=lambda r: (r.first_ms, r.first, -r.last_ms, -r.last)):
        last = out[-1] if out else None
        if last is not None and last.first <= run.first and run.last <= last.last and run.last_ms <= last.last_ms:
            continue  # it is part of it
        if last is not None and run.first == last.last + 1:
            out[-1] = Run(last.first_ms, run.last_ms, last.first, run.last)
        else:
            out.append(run)
    return out


def gaps(runs: Sequence[Run]) -> list[Gap]:
    """What is missing between runs in the order of time; a number that falls back begins a new count."""
    return [
        Gap(before.last + 1, after.first - 1, _time(before.last_ms), _time(after.first_ms))
        for before, after in itertools.pairwise(runs)
        if after.first > before.last + 1 and after.first_ms > before.last_ms
    ]


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)
