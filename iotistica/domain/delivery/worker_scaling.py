"""How many consumers there should be, by what they see: one more, one fewer, or as it is."""

from typing import Final, Literal

from msgspec import Struct

ProfileName = Literal["balanced", "batch", "streaming"]

SATURATED_SHARE: Final = 0.8  # share of the database's connections beyond which more consumers would only wait
DEEP_SHARE: Final = 0.6  # share of a stream's mark
MEMORY_SHARE: Final = 0.75  # share of Redis's memory
CALM_SHARE: Final = 0.2  # share of the two under which fewer will do
CHECK_SECONDS: Final = 5.0  # seconds between looks
COOLDOWN_SECONDS: Final = 10.0  # seconds after a change before the next


class Profile(Struct, frozen=True, kw_only=True):
    """What a deployment wants: fewer, larger transactions, or the shortest way to the table."""

    least: int
    most: int
    messages: int
    """Asked for at a time."""
    longest_idle: float
    """Seconds between looks at empty streams."""
    late: float
    """Seconds that a message may wait before there is one consumer more."""
    calm_looks: int
    """Looks in a row without need before there is one fewer."""


PROFILES: Final[dict[ProfileName, Profile]] = {
    "balanced": Profile(least=2, most=4, messages=800, longest_idle=0.1, late=2.0, calm_looks=6),
    "batch": Profile(least=1, most=4, messages=4000, longest_idle=1.0, late=5.0, calm_looks=12),
    "streaming": Profile(least=2, most=8, messages=200, longest_idle=0.02, late=1.0, calm_looks=10),
}


class LoadSignals(Struct, frozen=True, kw_only=True):
    """What is seen at a look: age of the oldest unread message in s, and shares from 0 to 1."""

    lag: float
    saturation: float
    depth: float
    memory: float


class ScaleState(Struct, frozen=True, kw_only=True):
    """How many there are, since when, in s of any clock, and how many looks in a row found no need for all."""

    workers: int
    changed_at: float = -COOLDOWN_SECONDS
    calm: int = 0


def next_scale(scale: ScaleState, signals: LoadSignals, profile: Profile, *, now: float) -> ScaleState:
    """The scale after a look."""
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
