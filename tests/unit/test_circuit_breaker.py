"""The circuit breaker, on a clock of the test's own."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.errors import Full, Unavailable
from iotistica.storage.circuit_breaker import FAILURES, FIRST_PROBE, NEXT_PROBE, SUCCESSES, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tries(breaker: CircuitBreaker, error: Exception | None = None) -> bool:
    """Whether a try was let through; it ends with that error."""
    reached = False
    with contextlib.suppress(Unavailable), breaker.guard():
        reached = True
        if error is not None:
            raise error
    return reached


def opened(clock: Callable[[], float]) -> CircuitBreaker:
    breaker = CircuitBreaker("x", clock=clock)
    for _ in range(FAILURES):
        assert tries(breaker, Unavailable())
    return breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    """A success in between starts the count again; an answer that says `full` is a success."""
    breaker = CircuitBreaker("x", clock=Clock())
    for ending in [*[Unavailable()] * (FAILURES - 1), Full(), *[Unavailable()] * (FAILURES - 1)]:
        assert tries(breaker, ending)
    assert breaker.is_closed
    tries(breaker, Unavailable())
    assert breaker.state == "open"
    assert not tries(breaker)


def test_it_probes_after_one_second_and_then_every_three() -> None:
    """Between probes nobody waits for what is away."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = FIRST_PROBE - 0.01
    assert not tries(breaker)
    clock.now = FIRST_PROBE
    assert tries(breaker, Unavailable())
    clock.now += NEXT_PROBE - 0.01
    assert not tries(breaker)
    clock.now += 0.01
    assert tries(breaker, Unavailable())


def test_it_closes_after_three_successes_in_a_row() -> None:
    """Once a probe was answered the next may follow at once; a failure opens it again."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = FIRST_PROBE
    assert tries(breaker)
    assert tries(breaker, Unavailable())
    assert breaker.state == "open"
    clock.now += NEXT_PROBE
    for number in range(SUCCESSES):
        assert breaker.state == ("half_open" if number else "open")
        assert tries(breaker)
    assert breaker.is_closed


def test_one_probe_at_a_time() -> None:
    """A probe that takes long keeps others out, and one that is cancelled lets the next in."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = FIRST_PROBE
    with pytest.raises(KeyboardInterrupt), breaker.guard():
        assert not tries(breaker)
        raise KeyboardInterrupt
    assert tries(breaker)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=60))
def test_it_never_stays_shut(steps: list[tuple[bool, float]]) -> None:
    """Whatever happened before, what answers again is let through within the longest wait."""
    clock = Clock()
    breaker = CircuitBreaker("x", clock=clock)
    for is_fine, wait in steps:
        tries(breaker, None if is_fine else Unavailable())
        clock.now += wait
    clock.now += NEXT_PROBE
    assert [tries(breaker) for _ in range(SUCCESSES)] == [True] * SUCCESSES
    assert breaker.is_closed
