"""Rollouts: how many agents are told at a time, what the rest waits for, and when it is called off."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FASTEST: Final = 60_000.0  # agents a minute, however much a rate has grown
BURST: Final = 5.0  # seconds of a rate that may come at once: after a pause nothing more is made up for


class Rollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a job reaches its agents; as it stands, all at once."""

    rate_per_minute: Annotated[float, Meta(gt=0, le=FASTEST)] | None = None
    growth_factor: Annotated[float, Meta(ge=1, le=10)] = 1
    """The rate is so many times higher with each `growth_after` agents that have succeeded."""
    growth_after: Annotated[int, Meta(ge=1, le=100_000)] = 10
    canary: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """So many agents come first; the rest waits until all of them have ended."""
    canary_success_percent: Annotated[float, Meta(gt=0, le=100)] = 100
    """With fewer canaries that succeed it is called off."""
    online_first: bool = True
    """Agents that are offline come last."""


class AbortRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call it off once so many per cent of the agents that have ended failed, or said nothing."""

    on: Literal["failures", "silences", "either"] = "either"
    percent: Annotated[float, Meta(gt=0, le=100)]
    min_agents: Annotated[int, Meta(ge=1, le=100_000)] = 1
    """That have ended before it counts."""


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    rollout: Rollout = Rollout()
    abort: Annotated[tuple[AbortRule, ...], Meta(max_length=10)] = ()


class JobCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many agents of a job are how far; `canaries` are counted among the others too."""

    waiting: int = 0
    """Not told yet."""
    queued: int = 0
    """Told, and not begun."""
    in_progress: int = 0
    succeeded: int = 0
    failed: int = 0
    """Or refused to."""
    timed_out: int = 0
    """Never began, or never ended."""
    canceled: int = 0
    canaries: int = 0
    """That were not canceled."""
    canaries_waiting: int = 0
    canaries_succeeded: int = 0
    canaries_lost: int = 0
    """Failed or timed out."""

    @property
    def open(self) -> int:
        return self.waiting + self.queued + self.in_progress

    @property
    def ended(self) -> int:
        """By their own doing, or by doing nothing."""
        return self.succeeded + self.failed + self.timed_out


class Pace(msgspec.Struct, frozen=True):
    """How many agents may be told now, as of a time."""

    credit: float
    at: datetime


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now: tell so many more agents, or call it off for a reason."""

    release: int
    pace: Pace
    abort: str | None = None


def next_step(policy: RolloutPolicy, counts: JobCounts, pace: Pace, now: datetime, *, most: int) -> RolloutStep:
    """The next step; `most` agents at once."""
    earned = _earned(policy.rollout, counts, pace, now)
    reason = _lost_canaries(policy.rollout, counts) or next(
        filter(None, (_passed(a, counts) for a in policy.abort)), None
    )
    if reason is not None:
        return RolloutStep(release=0, pace=Pace(earned, now), abort=reason)
    release = min(_may_come(counts), most)
    if policy.rollout.rate_per_minute is None:
        return RolloutStep(release=release, pace=Pace(earned, now))
    release = min(release, int(earned + 1e-9))  # six times a sixth is one
    return RolloutStep(release=release, pace=Pace(earned - release, now))


def rate(rollout: Rollout, succeeded: int) -> float:
    """Agents a second, after so many have succeeded; infinite if there is no rate."""
    if rollout.rate_per_minute is None:
        return float("inf")
    growth = 1.0
    for _ in range(succeeded // rollout.growth_after):
        growth *= rollout.growth_factor
        if growth == 1 or rollout.rate_per_minute * growth >= FASTEST:
            break
    return min(rollout.rate_per_minute * growth, FASTEST) / 60


def _earned(rollout: Rollout, counts: JobCounts, pace: Pace, now: datetime) -> float:
    if rollout.rate_per_minute is None:
        return pace.credit
    per_second = rate(rollout, counts.succeeded)
    passed = max((now - pace.at).total_seconds(), 0.0)
    return min(pace.credit + per_second * passed, max(1.0, per_second * BURST))


def _may_come(counts: JobCounts) -> int:
    """Canaries first; the others once all of those have ended."""
    if counts.canaries_waiting:
        return counts.canaries_waiting
    ended = counts.canaries_succeeded + counts.canaries_lost
    return counts.waiting if ended >= counts.canaries else 0


def _lost_canaries(rollout: Rollout, counts: JobCounts) -> str | None:
    if rollout.canary and not counts.canaries and not counts.ended + counts.queued + counts.in_progress:
        return "no canary is left: all of them were canceled"
    best = counts.canaries - counts.canaries_lost
    if not counts.canaries_lost or best * 100 >= rollout.canary_success_percent * counts.canaries:
        return None
    return (
        f"{counts.canaries_lost} of {counts.canaries} canaries did not succeed;"
        f" {rollout.canary_success_percent:g} % must"
    )


def _passed(rule: AbortRule, counts: JobCounts) -> str | None:
    bad = {"failures": counts.failed, "silences": counts.timed_out, "either": counts.failed + counts.timed_out}[
        rule.on
    ]
    if not bad or counts.ended < rule.min_agents or bad * 100 < rule.percent * counts.ended:
        return None
    what = {"failures": "failed", "silences": "timed out", "either": "failed or timed out"}[rule.on]
    return f"{bad} of {counts.ended} agents {what}; the limit is {rule.percent:g} %"
