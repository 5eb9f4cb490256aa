"""Decides by the load whether to run one consumer more, one fewer, or as many as before."""

from typing import Final, Literal

from msgspec import Struct

ProfileName = Literal["balanced", "batch", "streaming"]

SATURATED_SHARE: Final = 0.8  # share of the database connections in use above which more consumers would only wait
DEEP_SHARE: Final = 0.6  # share of a stream's high-water mark above which a consumer is added
MEMORY_SHARE: Final = 0.75  # share of Redis's memory above which a consumer is added
CALM_SHARE: Final = 0.2  # a depth below this share, and memory this far below MEMORY_SHARE, need fewer consumers
CHECK_SECONDS: Final = 5.0  # seconds between checks
COOLDOWN_SECONDS: Final = 10.0  # seconds between two changes


class Profile(Struct, frozen=True, kw_only=True):
    """Trades throughput (fewer, larger transactions) against the delay until readings are stored."""

    least: int
    """Minimum number of consumers."""
    most: int
    """Maximum number of consumers."""
    messages: int
    """Number of messages that a consumer aims to read at a time."""
    longest_idle: float
    """Longest pause between two reads of empty streams, in seconds."""
    late: float
    """Seconds that a message can wait before a consumer is added."""
    calm_looks: int
    """Number of calm checks in a row before a consumer is removed."""


PROFILES: Final[dict[ProfileName, Profile]] = {
    "balanced": Profile(least=2, most=4, messages=800, longest_idle=0.1, late=2.0, calm_looks=6),
    "batch": Profile(least=1, most=4, messages=4000, longest_idle=1.0, late=5.0, calm_looks=12),
    "streaming": Profile(least=2, most=8, messages=200, longest_idle=0.02, late=1.0, calm_looks=10),
}


class LoadSignals(Struct, frozen=True, kw_only=True):
    """The load at one check.

    `lag` is the age of the oldest unread message in seconds. The others are shares from 0 to 1: `saturation` of the
    database connections in use, `depth` of the deepest stream in its high-water mark, `memory` of Redis's memory.
    """

    lag: float
    saturation: float
    depth: float
    memory: float


class ScaleState(Struct, frozen=True, kw_only=True):
    """Number of consumers, time of the last change (seconds of any clock), and number of calm checks in a row."""

    workers: int
    changed_at: float = -COOLDOWN_SECONDS
    calm: int = 0


def next_scale(scale: ScaleState, signals: LoadSignals, profile: Profile, *, now: float) -> ScaleState:
    """Return the scale after a check; `now` is in seconds of the clock of `changed_at`."""
    is_pressed = signals.lag > profile.late or signals.depth > DEEP_SHARE or signals.memory > MEMORY_SHARE
    is_calm = (
        signals.lag < profile.late / 4 and signals.depth < CALM_SHARE and signals.memory < MEMORY_SHARE - CALM_SHARE
    )
    calm = scale.calm + 1 if is_calm else 0
    step = 0
    if now - scale.changed_at >= COOLDOWN_SECONDS:
        if is_pressed and signals.saturation < SATURATED_SHARE and scale.workers < profile.most:
            step = 1
        elif calm >= profile.calm_looks and scale.workers > profile.least:
            step = -1
    if not step:
        return ScaleState(workers=scale.workers, changed_at=scale.changed_at, calm=calm)
    return ScaleState(workers=scale.workers + step, changed_at=now)
