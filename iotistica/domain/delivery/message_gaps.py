"""Finds messages of an agent that never arrived, by the numbers in its message ids.

A message id is `<uuid>-<ms>-<number>-<anything>`. If the agent increments the number with every message, a skipped
number is a missing message. The public agent counts only within one millisecond and restarts at 0 in the next,
which does not reveal missing messages. Therefore a 0 is ignored, and a number that does not rise starts a new
count.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

MSG_ID: Final = re.compile(r"[0-9a-fA-F-]{36}-(\d{1,15})-(\d{1,15})(?:-|$)")
LATEST: Final = 4_102_444_800_000  # ms since the epoch: the year 2100


class MessageNumber(NamedTuple):
    """The time at which the id of a message was created, in ms since the epoch, and the message's number."""

    ms: int
    number: int


class Run(NamedTuple):
    """Consecutive messages without a gap, both ends included; times in ms since the epoch."""

    first_ms: int
    last_ms: int
    first: int
    last: int


class Gap(NamedTuple):
    """Numbers that never arrived, both ends included, and the times of the messages before and after them."""

    first: int
    last: int
    after: datetime
    before: datetime


def number_of(msg_id: object) -> MessageNumber | None:
    """Return the time and the number in a message id, or None if it has no usable number."""
    match = MSG_ID.match(msg_id) if isinstance(msg_id, str) and len(msg_id) <= 100 else None
    if not match or int(match[2]) == 0 or int(match[1]) > LATEST:
        return None
    return MessageNumber(int(match[1]), int(match[2]))


def join_runs(runs: Iterable[Run], marks: Iterable[MessageNumber]) -> list[Run]:
    """Join runs and single messages into runs in the order of time; the order of arrival does not matter."""
    pieces = {*runs, *(Run(ms, ms, number, number) for ms, number in marks)}
    out: list[Run] = []
    for run in sorted(pieces, key=lambda r: (r.first_ms, r.first, -r.last_ms, -r.last)):
        last = out[-1] if out else None
        if last is not None and last.first <= run.first and run.last <= last.last and run.last_ms <= last.last_ms:
            continue  # it lies inside the last run
        if last is not None and run.first == last.last + 1:
            out[-1] = Run(last.first_ms, run.last_ms, last.first, run.last)
        else:
            out.append(run)
    return out


def gaps(runs: Sequence[Run]) -> list[Gap]:
    """Return the gaps between runs, which are in the order of time; a number that falls starts a new count."""
    return [
        Gap(before.last + 1, after.first - 1, _time(before.last_ms), _time(after.first_ms))
        for before, after in itertools.pairwise(runs)
        if after.first > before.last + 1 and after.first_ms > before.last_ms
    ]


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)
