"""A circuit breaker: what is away is asked now and then, not by everybody all the time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from loguru import logger

from iotistica.errors import Full, Unavailable
from iotistica.instruments import BREAKER

State = Literal["closed", "open", "half_open"]

FAILURES: Final = 5  # in a row, that open it
FIRST_PROBE: Final = 1.0  # seconds after it opened
NEXT_PROBE: Final = 3.0  # seconds after a probe that failed
SUCCESSES: Final = 3  # in a row, that close it
METRIC_VALUES: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}


def is_unavailable(exc: Exception) -> bool:
    """Whether nobody answered; `Full` is an answer."""
    return isinstance(exc, Unavailable) and not isinstance(exc, Full)


class CircuitBreaker:
    """Of one dependency of this process; `clock` in seconds."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._state: State = "closed"
        self._failures = 0
        self._successes = 0
        self._probe_at = 0.0
        self._probing = False
        BREAKER.set(0, {"dependency": name})

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_closed(self) -> bool:
        return self._state == "closed"

    @contextmanager
    def guard(self, is_lost: Callable[[Exception], bool] = is_unavailable) -> Iterator[None]:
        """Let the block try, and count how it ends; raises `Unavailable` without a try while it is open.

        While half open one try at a time is let through. An error that `is_lost` does not own is an answer.
        """
        probe = self._admit()
        try:
            yield
        except Exception as exc:
            if is_lost(exc):
                self.failed()
            elif not is_unavailable(exc):  # which would be another dependency's
                self.succeeded()
            raise
        else:
            self.succeeded()
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Whether this try is a probe; raises `Unavailable` if there may be none now."""
        if self._state == "closed":
            return False
        if self._probing or self._clock() < self._probe_at:
            raise Unavailable(f"{self.name} is away")
        self._probing = True
        self._go("half_open")
        return True

    def succeeded(self) -> None:
        """Count an answer."""
        self._failures = 0
        if self._state == "closed":
            return
        self._successes += 1
        if self._successes >= SUCCESSES:
            self._go("closed")

    def failed(self) -> None:
        """Count a failure."""
        self._successes = 0
        self._failures += 1
        if self._state == "half_open":
            self._probe_at = self._clock() + NEXT_PROBE
            self._go("open")
        elif self._state == "closed" and self._failures >= FAILURES:
            self._probe_at = self._clock() + FIRST_PROBE
            self._go("open")

    def _go(self, state: State) -> None:
        if state == self._state:
            return
        if state != "half_open" and (state, self._state) != ("open", "half_open"):
            logger.bind(dependency=self.name, breaker=state).warning("circuit breaker")
        self._state = state
        BREAKER.set(METRIC_VALUES[state], {"dependency": self.name})
