"""Makes series of readings whose anomalies are known: ordinary industrial behaviour, and one event near the end."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

DAY: Final = 86_400
BEGIN: Final = 1_772_409_600  # Monday, 2 March 2026, 00:00 UTC
ROLLOVER: Final = 15_000.0  # where a counter with resets starts anew
EVENT_AT: Final = 2 * DAY + 8.5 * 3600  # of the last week: Wednesday, 8:30

Change = Callable[[float, float, random.Random], float]
"""The value during an event, from the ordinary value and the hours since the event began."""


class KnownSeries(NamedTuple):
    name: str
    readings: list[tuple[float, float]]
    event: tuple[float, float] | None  # from, to; None: nothing happens, every detection is a false alarm


def _working_week(at: float) -> float:
    """Return a load between about 0 and 1: a working day with a lunch break, quiet at night and at weekends."""
    hour = at % DAY / 3600
    day = 1 / (1 + math.exp(-3 * (hour - 7))) - 1 / (1 + math.exp(-3 * (hour - 18)))
    lunch = 0.3 * math.exp(-((hour - 12.5) ** 2))
    return (day - lunch) * (0.25 if (at - BEGIN) // DAY % 7 >= 5 else 1.0)


def _sine(at: float) -> float:
    return math.sin(2 * math.pi * at / DAY)


def _noise(dice: random.Random, keep: float) -> Iterator[float]:
    """Yield noise with a standard deviation of 1, of which a share is kept from each reading to the next."""
    now, fresh = 0.0, math.sqrt(1 - keep * keep)
    while True:
        now = keep * now + fresh * dice.gauss(0, 1)
        yield now


def _ordinary(kind: str, dice: random.Random, interval: int) -> Callable[[float], float]:
    """Return a function that is called with each time in turn, and returns the value."""
    slow, short = _noise(dice, math.exp(-interval / 1800)), _noise(dice, 0.95)
    total, switch = [0.0], [0.0, 0.0]

    def counter(at: float) -> float:
        total[0] += interval / 60 * (2 + _sine(at)) * dice.uniform(0.8, 1.2)
        return total[0]

    def switched(at: float) -> float:
        if at >= switch[1]:
            switch[0], switch[1] = 1 - switch[0], at + dice.uniform(600, 5400)
        return switch[0]

    def wandering(_at: float) -> float:
        total[0] += dice.gauss(0, math.sqrt(interval) / 60) - total[0] * interval / (5 * DAY)
        return total[0] + 0.2 * next(slow)

    return {
        "constant": lambda at: 42.0,
        "white noise": lambda at: 50 + dice.gauss(0, 1),
        "season": lambda at: 20 + 10 * _sine(at) + 0.5 * next(slow) + dice.gauss(0, 0.3),
        "season, AR(0.95)": lambda at: 20 + 10 * _sine(at) + next(short),
        "working week": lambda at: 100 * _working_week(at) + 2 * next(slow) + dice.gauss(0, 2),
        "wandering level": wandering,
        "counter": counter,
        "counter, resets": lambda at: counter(at) % ROLLOVER,
        "on and off": switched,
    }[kind]


ORDINARY: Final = (
    "constant", "white noise", "season", "season, AR(0.95)", "working week", "wandering level", "counter",
    "counter, resets", "on and off",
)  # fmt: skip
EVENTS: Final[dict[str, tuple[str, float, Change]]] = {  # the ordinary series, hours, change
    "step": ("season", 48, lambda value, hours, dice: value + 6),
    "spike": ("season", 0.1, lambda value, hours, dice: value + 15),
    "drift": ("season", 72, lambda value, hours, dice: value + hours / 8),
    "season break": ("working week", 24, lambda value, hours, dice: 2 + dice.gauss(0, 2)),
    "stuck": ("season", 24, lambda value, hours, dice: 27.0),
    "growing noise": ("season", 48, lambda value, hours, dice: value + dice.gauss(0, 1) * hours / 8),
    "counter stops": ("counter", 24, lambda value, hours, dice: 0.0),
    "counter races": ("counter", 2, lambda value, hours, dice: value + 1000 * hours),
    "stays on": ("on and off", 24, lambda value, hours, dice: 1.0),
    "constant moves": ("constant", 24, lambda value, hours, dice: 42.5),
}


def ordinary(kind: str, interval: int, weeks: int, seed: int) -> KnownSeries:
    dice = random.Random(f"{kind} {interval} {seed}")
    value = _ordinary(kind, dice, interval)
    times = range(BEGIN, BEGIN + weeks * 7 * DAY, interval)
    return KnownSeries(kind, [(float(at), value(at)) for at in times], None)


def with_event(event: str, interval: int, weeks: int, seed: int) -> KnownSeries:
    """Return an ordinary series in which the event happens in the last week."""
    kind, hours, change = EVENTS[event]
    dice = random.Random(f"{event} {interval} {seed}")
    begin = BEGIN + (weeks - 1) * 7 * DAY + EVENT_AT
    end, rows, offset, before = begin + hours * 3600, [], 0.0, 0.0
    for at, ordinary_value in ordinary(kind, interval, weeks, seed).readings:
        value = ordinary_value + offset
        if begin <= at < end:
            changed = change(ordinary_value, (at - begin) / 3600, dice)
            value = changed or before  # a counter that stops
            offset = value - ordinary_value if kind == "counter" else 0.0  # it goes on from there
        rows.append((at, value))
        before = value
    return KnownSeries(event, rows, (begin, end))
