"""Everything that the detector knows of one series: two arrays of numbers of constant size, and their bytes.

The numbers have names that are places in an array: as Python objects they would take several times the memory.
"""

from array import array
from typing import Final, Self

VERSION: Final = 1.0  # of the layout: a state with another one is not read, the series is learned anew
EARLIEST: Final = -1e12  # epoch seconds: before the first reading
DAY_BINS: Final = 48  # half hours
WARM: Final = 50.0  # moments before the first surprise and the first band

# The series as it arrives, times in epoch seconds UTC
(LAYOUT, LAST_TIME, LAST_VALUE, IS_COUNTER, RISES, RISING_SINCE) = range(6)
# The moment that is being put together from readings which come fast (see `detector`)
(HELD, HELD_MEAN, HELD_LOW, HELD_HIGH, JUDGED_TIME, JUDGED_VALUE) = range(6, 12)
# What is ordinary: the time of the first moment, the moments judged so far, the usual seconds between two of them
(BEGAN, AGE, INTERVAL, LEVEL, LOWEST, HIGHEST, PREVIOUS) = range(12, 19)
(SHORT_MEAN, LONG_MEAN, SHORT_CHANGE, LONG_CHANGE) = range(19, 23)
# The alarm stage: the age at the last alarm, and the leaky number of alarms as of then
(LAST_ALARM, ALARMS) = range(23, 25)
# The tail counts: moments in each table as of the last refresh, the unit of residuals, when to check it next
(COUNTED, UNIT, CHECK) = range(25, 28)
# The band: the usual size of a residual, how many of them it reaches up and down, whether the last was outside
(USUAL_SIZE, ABOVE, BELOW, IS_OUTSIDE) = range(28, 32)
# Of shifts and of activities: the mean square root of those that were not 0, and their number
(SHIFT_ROOT, SHIFTS, ACTIVITY_ROOT, ACTIVITIES) = range(32, 36)
PROFILE: Final = 36  # what each half hour of the day adds to the level
NUMBERS: Final = PROFILE + DAY_BINS

RESIDUAL_BINS: Final = 20  # for each sign
OTHER_BINS: Final = 12
COUNTS: Final = 4 * (RESIDUAL_BINS + 2 * OTHER_BINS)  # counts of both signs, and as many surprises
_HEAD: Final = DAY_BINS + 4 * COUNTS  # bytes before the numbers
# The first residuals wait at the end of the numbers until there are enough to tell their unit
LARGEST_SIZE: Final = _HEAD + 8 * (NUMBERS + int(WARM))  # bytes


class DetectorState:
    """One series. float32 counts exactly up to 2**24; the counts are halved long before."""

    __slots__ = ("counts", "numbers", "visits")

    def __init__(self) -> None:
        self.numbers = array("d", bytes(8 * NUMBERS))
        self.numbers[LAYOUT], self.numbers[LAST_TIME] = VERSION, EARLIEST
        self.counts = array("f", bytes(4 * COUNTS))
        self.visits = bytearray(DAY_BINS)  # of each half hour of the day

    def forget(self) -> None:
        """Forget what is ordinary, but not the readings as they arrive: from now on something else is judged."""
        del self.numbers[NUMBERS:]
        self.numbers[HELD:] = array("d", bytes(8 * (NUMBERS - HELD)))
        self.counts[:] = array("f", bytes(4 * COUNTS))
        self.visits[:] = bytes(DAY_BINS)

    def to_bytes(self) -> bytes:
        """Return the whole state, at most `LARGEST_SIZE` bytes, in the byte order of this machine."""
        return bytes(self.visits) + self.counts.tobytes() + self.numbers.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return a state that continues exactly where the other one stood; ValueError if it has another layout.

        The surprises are stored although they follow from counts: from older counts, at the time of their refresh.
        """
        if not _HEAD + 8 * NUMBERS <= len(data) <= LARGEST_SIZE or (len(data) - _HEAD) % 8:
            raise ValueError(f"a state of {len(data)} bytes")
        state = cls()
        state.visits = bytearray(data[:DAY_BINS])
        state.counts = array("f", data[DAY_BINS:_HEAD])
        state.numbers = array("d", data[_HEAD:])
        if state.numbers[LAYOUT] != VERSION:
            raise ValueError(f"a state of layout {state.numbers[LAYOUT]}")
        return state
