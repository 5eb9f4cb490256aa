"""A circuit breaker: while a service is unavailable, only occasional probes call it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from loguru import logger

from iotistica.errors import Full, Unavailable
from iotistica.instruments import BREAKER

State = Literal["closed", "open", "half_open"]

FAILURES: Final = 5  # consecutive failures that open it
FIRST_PROBE: Final = 1.0  # seconds after it opened
NEXT_PROBE: Final = 3.0  # seconds after a probe that failed
SUCCESSES: Final = 3  # consecutive successes that close it
METRIC_VALUES: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}


def is_unavailable(exc: Exception) -> bool:
    """Whether the error means that the service did not answer; `Full` is an answer."""
    return isinstance(exc, Unavailable) and not isinstance(exc, Full)


class CircuitBreaker:
    """The circuit breaker of one dependency of this process; `clock` returns seconds."""

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
        """Run the block and count its outcome; raises `Unavailable` without running it while the breaker is open.

        While half open, one call at a time is let through. `is_lost` says whether an error is a failure of this
        dependency. Any other error counts as an answer, unless it says that another dependency is unavailable.
        """
        probe = self._admit()
        try:
            yield
        except Exception as exc:
            if is_lost(exc):
                self.failed()
            elif not is_unavailable(exc):  # such an error is of another dependency
                self.succeeded()
            raise
        else:
            self.succeeded()
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Return whether this call is a probe; raises `Unavailable` if no call is allowed now."""
        if self._state == "closed":
            return False
        if self._probing or self._clock() < self._probe_at:
            raise Unavailable(f"{self.name} is unavailable")
        self._probing = True
        self._set_state("half_open")
        return True

    def succeeded(self) -> None:
        """Count a success."""
        self._failures = 0
        if self._state == "closed":
            return
        self._successes += 1
        if self._successes >= SUCCESSES:
            self._set_state("closed")

    def failed(self) -> None:
        """Count a failure."""
        self._successes = 0
        self._failures += 1
        if self._state == "half_open":
            self._probe_at = self._clock() + NEXT_PROBE
            self._set_state("open")
        elif self._state == "closed" and self._failures >= FAILURES:
            self._probe_at = self._clock() + FIRST_PROBE
            self._set_state("open")

    def _set_state(self, state: State) -> None:
        if state == self._state:
            return
        if state != "half_open" and (state, self._state) != ("open", "half_open"):
            logger.bind(dependency=self.name, breaker=state).warning("the circuit breaker changed its state")
        self._state = state
        BREAKER.set(METRIC_VALUES[state], {"dependency": self.name})
