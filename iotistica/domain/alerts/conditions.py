"""The conditions of alert rules, as people write them."""

import math
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from iotistica.errors import Invalid

Quality = Literal["bad", "uncertain", "stale", "unknown"]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86_400)]
PER_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Bounds(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Bounds of a value: it is out of bounds above `above` or below `below`; with both, outside of a range.

    A condition ends only when the value is back at `clear_below` or `clear_above`, which are the bounds themselves
    unless given: fires above 70, ends at 65 or below.
    """

    above: float | None = None
    below: float | None = None
    clear_below: float | None = None
    clear_above: float | None = None

    def is_out(self, value: float) -> bool:
        """Whether the value is out of bounds."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def is_back(self, value: float) -> bool:
        """Whether the value is so far within the bounds that a condition ends; False for NaN."""
        high = self.above if self.clear_below is None else self.clear_below
        low = self.below if self.clear_above is None else self.clear_above
        return (high is None or value <= high) and (low is None or value >= low)

    def crossed(self, value: float) -> float | None:
        """Return the bound that a value is beyond."""
        return self.above if self.above is not None and value > self.above else self.below

    def check(self, path: str) -> None:
        """Raise `Invalid` for bounds that are absent, not finite or contradict each other."""
        numbers = {name: getattr(self, name) for name in ("above", "below", "clear_below", "clear_above")}
        for name, number in numbers.items():
            if number is not None and not math.isfinite(number):
                raise Invalid("must be a finite number", f"{path}.{_camel(name)}")
        if self.above is None and self.below is None:
            raise Invalid("must have above, below or both", path)
        if self.above is not None and self.below is not None and self.below > self.above:
            raise Invalid("must not be greater than above: every value would be out of bounds", f"{path}.below")
        if self.clear_below is not None and (self.above is None or self.clear_below > self.above):
            raise Invalid("needs above, and must not be greater than it", f"{path}.clearBelow")
        if self.clear_above is not None and (self.below is None or self.clear_above < self.below):
            raise Invalid("needs below, and must not be less than it", f"{path}.clearAbove")
        low = self.below if self.clear_above is None else self.clear_above
        high = self.above if self.clear_below is None else self.clear_below
        if low is not None and high is not None and low > high:
            raise Invalid("must not be greater than clearBelow: no value would end it", f"{path}.clearAbove")


class _Condition(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    tag_field="kind",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """The form of every condition: an object with a `kind`."""


class Threshold(Bounds, frozen=True, kw_only=True, tag_field="kind", tag="threshold", forbid_unknown_fields=True):
    """The value is out of bounds."""


class RateOfChange(Bounds, frozen=True, kw_only=True, tag_field="kind", tag="rate", forbid_unknown_fields=True):
    """The value changes too fast: its change over about `window_seconds`, by second, minute, hour or day."""

    per: Literal["second", "minute", "hour", "day"] = "minute"
    window_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Zero compares each reading with the one before it."""


class LearnedAnomaly(_Condition, frozen=True, kw_only=True, tag="anomaly"):
    """The learned detector finds a value unusual; ends when values were as expected for `calm_seconds`."""

    score: Annotated[float, Meta(gt=0, le=1)] = 0.93
    """How unusual, from 0 to 1; docs/anomalies.md has the false alarms a week by this bound."""
    calm_seconds: Seconds = 900.0


class Absence(_Condition, frozen=True, kw_only=True, tag="absence"):
    """A series has no reading for the rule's `forSeconds`, by the measured time of its newest reading."""


class StuckValue(_Condition, frozen=True, kw_only=True, tag="stuck"):
    """The value stays within `tolerance` of where it was for the rule's `forSeconds`."""

    tolerance: Annotated[float, Meta(ge=0)] = 0.0


class BadQuality(_Condition, frozen=True, kw_only=True, tag="quality"):
    """Readings have one of these qualities."""

    qualities: Annotated[tuple[Quality, ...], Meta(min_length=1, max_length=4)] = ("bad",)


class Comparison(Bounds, frozen=True, kw_only=True, tag_field="kind", tag="comparison", forbid_unknown_fields=True):
    """The difference of a series to another series of the same agent, or their ratio, is out of bounds."""

    other: Annotated[str, Meta(min_length=1, max_length=512)]
    """A metric of the same device, or the whole name of a series."""
    as_: Literal["difference", "ratio"] = msgspec.field(default="difference", name="as")
    apart_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    """Values that were measured further apart are not compared."""


class AgentStatus(_Condition, frozen=True, kw_only=True, tag="agent"):
    """An agent has one of these statuses."""

    statuses: Annotated[tuple[Literal["offline", "silent"], ...], Meta(min_length=1, max_length=2)] = (
        "offline",
        "silent",
    )


class FailedJob(_Condition, frozen=True, kw_only=True, tag="job"):
    """A job failed on an agent; ends when it succeeds there, or after `window_seconds`."""

    statuses: Annotated[
        tuple[Literal["FAILED", "TIMED_OUT", "REJECTED"], ...], Meta(min_length=1, max_length=3)
    ] = ("FAILED", "TIMED_OUT", "REJECTED")
    window_seconds: Annotated[float, Meta(ge=60, le=30 * 86_400)] = 86_400.0


class RefusedMessages(_Condition, frozen=True, kw_only=True, tag="deadLetters"):
    """Messages of an agent became dead letters: at least `count` within about `window_seconds`."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    window_seconds: Annotated[float, Meta(ge=3600, le=7 * 86_400)] = 3600.0


class PlatformAlarm(_Condition, frozen=True, kw_only=True, tag="platform"):
    """The platform raises an alarm, as /health shows it."""


SeriesCondition = Threshold | RateOfChange | LearnedAnomaly | Absence | StuckValue | BadQuality | Comparison
"""Conditions of single series, found in their readings."""
StateCondition = AgentStatus | FailedJob | RefusedMessages | PlatformAlarm
"""Conditions of agents and of the platform, found in what the platform knows of them."""
Condition = SeriesCondition | StateCondition


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
