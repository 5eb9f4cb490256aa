"""Detection of messages that never arrived, by the numbers in their ids."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.delivery.message_gaps import MessageNumber, Run, gaps, join_runs, number_of

AGENT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.mark.parametrize(
    ("msg_id", "mark"),
    [
        (f"{AGENT}-1795420118659-7-ccp8", MessageNumber(1795420118659, 7)),
        (f"{AGENT}-1795420118659-7", MessageNumber(1795420118659, 7)),
        (f"{AGENT}-1795420118659-0-ccp8", None),  # the public agent's counter begins at 0 with each millisecond
        (f"{AGENT}-1795420118659-x7k9p1", None),
        ("hello", None),
        (17, None),
        (None, None),
        (f"{AGENT}-{'9' * 40}-1-a", None),
    ],
)
def test_the_number_is_read_from_the_id(msg_id: object, mark: MessageNumber | None) -> None:
    """Other ids have no number."""
    assert number_of(msg_id) == mark


@st.composite
def boots(draw: st.DrawFn, most: int) -> list[MessageNumber]:
    """Messages that an agent sent over several restarts; after each restart it counts from 1 again."""
    sent, ms = [], 1000
    for _ in range(draw(st.integers(1, most))):
        for number in range(1, draw(st.integers(2, 12))):
            ms += draw(st.integers(1, 50))
            sent.append(MessageNumber(ms, number))
        ms += 1000
    return sent


def missing(sent: Sequence[MessageNumber], arrived: set[MessageNumber]) -> list[tuple[int, int]]:
    """Return the expected gaps: between messages of one boot that arrived."""
    out = []
    in_order = [mark for mark in sent if mark in arrived]
    for before, after in pairwise(in_order):
        if after.number > before.number + 1:
            out.append((before.number + 1, after.number - 1))
    return out


def in_portions(order: Sequence[MessageNumber], data: st.DataObject) -> list[Run]:
    runs: list[Run] = []
    while order:
        size = data.draw(st.integers(1, len(order)))
        runs = join_runs(runs, order[:size])
        order = order[size:]
    return runs


@given(boots(1), st.data())
def test_gaps_are_those_that_never_arrived_whatever_the_order(
    sent: list[MessageNumber], data: st.DataObject
) -> None:
    """Late, repeated or reordered messages, joined in any portions, give the gaps of the messages that arrived."""
    arrived = [mark for mark in sent if data.draw(st.booleans())]
    runs = in_portions(data.draw(st.permutations([*arrived, *arrived[:3]])), data)
    assert [(gap.first, gap.last) for gap in gaps(runs)] == missing(sent, set(arrived))
    assert runs == join_runs((), arrived)


@given(boots(3), st.data())
def test_a_restart_begins_a_new_count(sent: list[MessageNumber], data: st.DataObject) -> None:
    """A number that falls is not a gap; messages missing before and after it are gaps."""
    starts = [at for at, mark in enumerate(sent) if mark.number == 1]
    arrived = [mark for at, mark in enumerate(sent) if at in starts or data.draw(st.booleans())]
    runs = in_portions(arrived, data)
    assert [(gap.first, gap.last) for gap in gaps(runs)] == missing(sent, set(arrived))
    assert join_runs(runs, data.draw(st.permutations(arrived))) == runs


@given(st.lists(st.integers(0, 2), max_size=40))
def test_the_public_agents_counter_is_never_taken_for_a_sequence(per_ms: list[int]) -> None:
    """The public agent counts only within a millisecond, so its numbers never show a gap."""
    ids = [f"{AGENT}-{1000 + ms}-{n}-abc" for ms, count in enumerate(per_ms) for n in range(count)]
    marks = [mark for mark in map(number_of, ids) if mark]
    assert gaps(join_runs((), marks)) == []
