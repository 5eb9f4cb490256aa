"""How surprising a number is among its own past, from counts: nothing is assumed about how the numbers spread.

The bins are half octaves of a unit, for each sign: 0 to 1.4 units, 1.4 to 2, 2 to 2.8, and so on; the last bin has
all above. The surprise of a bin is -ln of the share of past numbers that were at least as large, so every kind of
evidence speaks the same language: nats. Past numbers that were smaller still weigh a little, the less the smaller
they were: twice as large as anything before is less surprising than a hundred times as large.
"""

from array import array
from bisect import bisect_right
from math import log1p, log2, nextafter, sqrt
from struct import Struct
from typing import Final

from iotistica.domain.alerts.detector_state import (
    ACTIVITIES,
    ACTIVITY_ROOT,
    CHECK,
    COUNTED,
    NUMBERS,
    OTHER_BINS,
    RESIDUAL_BINS,
    SHIFT_ROOT,
    SHIFTS,
    UNIT,
    WARM,
    DetectorState,
)

BINS_AN_OCTAVE: Final = 2
FADE: Final = 0.25  # weight of a count one bin below, 1/16 an octave: gentler tails cost much accuracy
PRIOR: Final = 1.0  # numbers at least as large that each table is born with
REFRESH: Final = 32.0  # moments between two refreshes of the surprises: oftener gains nothing
FORGET: Final = 16_000  # moments, then counts are halved: shorter memories cost accuracy
MEDIAN_BIN: Final = 4  # where the median residual belongs: two octaves below it, eight above
UNIT_OF_MEDIAN: Final = 2.0 ** (-MEDIAN_BIN / BINS_AN_OCTAVE)
LEAST_UNIT: Final = 5e-324  # the smallest number above 0
FIRST_CHECK: Final = 128.0  # moments; then, and at 256, 512, ..., the bins are moved to where the median belongs


def _least_ratio(bin_: int) -> float:
    """Return the least ratio to the unit that belongs in a bin: the least whose logarithm says so, rounded."""
    ratio: float = 2.0 ** (bin_ / BINS_AN_OCTAVE)
    while int(BINS_AN_OCTAVE * log2(smaller := nextafter(ratio, 0.0))) == bin_:
        ratio = smaller
    return ratio


class TailCounts:
    """Where a state holds the counts of one kind of evidence: positive, negative, then their surprises alike."""

    __slots__ = ("bins", "bounds", "first", "floats", "last", "reach", "root_at", "seen_at", "to_surprise")

    def __init__(self, first: int, bins: int, root_at: int = 0, seen_at: int = 0) -> None:
        self.first, self.bins, self.last = first, bins, bins - 1
        self.root_at, self.seen_at = root_at, seen_at
        self.bounds = tuple(map(_least_ratio, range(1, bins)))
        self.to_surprise = 2 * bins  # from the place of a bin's count to that of its surprise
        self.floats = Struct(f"{bins}f")
        self.reach = 2.0 ** (bins / BINS_AN_OCTAVE) * (1 - 1e-9)  # or rounding might lead into a bin of others

    def count(self, numbers: "array[float]", counts: "array[float]", number: float) -> float:
        """Count a number, and return the surprise in nats that its bin had at the last refresh.

        One function, as calls cost much here. The unit is a quarter of the median size; or of the usual size, which
        is the square of a mean root that learns the number.
        """
        bin_, size = self.first, number
        if number < 0.0:
            bin_, size = bin_ + self.bins, -number
        elif number == 0.0:
            counts[bin_] += 0.5
            counts[bin_ + self.bins] += 0.5
            return 0.0
        if self.root_at:
            root, seen = numbers[self.root_at], numbers[self.seen_at] + 1.0
            numbers[self.seen_at] = seen
            numbers[self.root_at] = root + (sqrt(size) - root) / seen
            unit = 0.25 * (root * root if seen > 1.0 else size)
        else:
            unit = numbers[UNIT]
        if size > unit:  # compared with a product, as a ratio to a tiny unit might be infinite
            bin_ += bisect_right(self.bounds, size / unit) if size < unit * self.reach else self.last
        counts[bin_] += 1.0
        return counts[bin_ + self.to_surprise]

    def halve(self, counts: "array[float]") -> None:
        for bin_ in range(self.first, self.first + self.to_surprise):
            counts[bin_] *= 0.5

    def refresh(self, counts: "array[float]", counted: float) -> None:
        """Compute the surprises from the counts."""
        numbers = counted + 1.0
        for begin in (self.first, self.first + self.bins):
            bins = self.floats.unpack_from(counts, 4 * begin)
            tail, smaller, surprises = sum(bins) + PRIOR, 0.0, []
            for count in bins:
                rarity = numbers / (tail + smaller)
                # log1p and not log, as it takes half the time; what it rounds otherwise, a float32 does not show
                surprises.append(log1p(rarity - 1.0) if rarity > 1.0 else 0.0)
                tail -= count
                smaller = (smaller + count) * FADE
            self.floats.pack_into(counts, 4 * (begin + self.to_surprise), *surprises)

    def median_bin(self, counts: "array[float]") -> int:
        """Return the bin of the median size, whatever its sign."""
        begin, bin_ = self.first, 0
        half = sum(counts[begin : begin + 2 * self.bins]) / 2
        while bin_ < self.last and half > (here := counts[begin + bin_] + counts[begin + bin_ + self.bins]):
            half -= here
            bin_ += 1
        return bin_

    def move(self, counts: "array[float]", by: int) -> None:
        """Move all counts down by so many bins; what would leave the table stays in its first or last bin."""
        for begin in (self.first, self.first + self.bins):
            bins = counts[begin : begin + self.bins]
            counts[begin : begin + self.bins] = array("f", bytes(4 * self.bins))
            for bin_, count in enumerate(bins):
                counts[begin + min(self.last, max(0, bin_ - by))] += count


RESIDUAL_COUNTS: Final = TailCounts(0, RESIDUAL_BINS)
SHIFT_COUNTS: Final = TailCounts(4 * RESIDUAL_BINS, OTHER_BINS, SHIFT_ROOT, SHIFTS)
ACTIVITY_COUNTS: Final = TailCounts(4 * (RESIDUAL_BINS + OTHER_BINS), OTHER_BINS, ACTIVITY_ROOT, ACTIVITIES)


def first_residual(state: DetectorState, residual: float) -> float:
    """Let residuals wait until they tell the unit. Zeros say nothing about it, and are counted at once."""
    numbers, counts = state.numbers, state.counts
    if residual:
        numbers.append(residual)
    else:
        RESIDUAL_COUNTS.count(numbers, counts, 0.0)
    zeros = 2.0 * counts[0]
    waiting = numbers[NUMBERS:]
    if not waiting or zeros + len(waiting) < WARM:
        return 0.0
    sizes = sorted(map(abs, waiting))
    median = sizes[len(sizes) // 2] / 2 + sizes[(len(sizes) - 1) // 2] / 2
    del numbers[NUMBERS:]
    numbers[UNIT] = median * UNIT_OF_MEDIAN or LEAST_UNIT
    numbers[CHECK] = FIRST_CHECK
    for one in waiting[:-1]:
        RESIDUAL_COUNTS.count(numbers, counts, one)
    RESIDUAL_COUNTS.refresh(counts, zeros + len(waiting) - 1)
    surprise = RESIDUAL_COUNTS.count(numbers, counts, waiting[-1])
    return surprise if residual else 0.0  # a zero has been counted above


def refresh(state: DetectorState) -> None:
    """Do what is due once in `REFRESH` moments: forget, adapt the unit, and compute the surprises anew."""
    numbers, counts = state.numbers, state.counts
    counted = numbers[COUNTED] + REFRESH
    if counted > FORGET:
        for table in (RESIDUAL_COUNTS, SHIFT_COUNTS, ACTIVITY_COUNTS):
            table.halve(counts)
        counted *= 0.5
        for at in (CHECK, SHIFTS, ACTIVITIES):  # so that the unit is checked again, and the means keep learning
            numbers[at] *= 0.5
    numbers[COUNTED] = counted
    if numbers[UNIT]:
        if counted >= numbers[CHECK]:
            numbers[CHECK] *= 2.0
            _check_unit(state)
        RESIDUAL_COUNTS.refresh(counts, counted)
    SHIFT_COUNTS.refresh(counts, counted)
    ACTIVITY_COUNTS.refresh(counts, counted)


def _check_unit(state: DetectorState) -> None:
    """Move the bins to where the median belongs, unless the median lies in the first, which has no lower end."""
    bin_ = RESIDUAL_COUNTS.median_bin(state.counts)
    by = bin_ - MEDIAN_BIN
    unit = state.numbers[UNIT] * 2.0 ** (by / BINS_AN_OCTAVE)
    if bin_ and by and unit:
        state.numbers[UNIT] = unit
        RESIDUAL_COUNTS.move(state.counts, by)
