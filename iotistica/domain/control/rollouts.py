"""Rollouts of jobs: how many agents get a job at a time, what the others wait for, and when the job is aborted."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FASTEST: Final = 60_000.0  # agents a minute; a growing rate stops here
BURST: Final = 5.0  # seconds of a rate that can be released at once, so that a pause is not made up for


class Rollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast and in what order a job reaches its agents; the defaults release all agents at once."""

    rate_per_minute: Annotated[float, Meta(gt=0, le=FASTEST)] | None = None
    growth_factor: Annotated[float, Meta(ge=1, le=10)] = 1
    """The rate is multiplied by this factor each time another `growth_after` agents have succeeded."""
    growth_after: Annotated[int, Meta(ge=1, le=100_000)] = 10
    canary: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """The number of agents that get the job first; the others wait until all canaries have ended."""
    canary_success_percent: Annotated[float, Meta(gt=0, le=100)] = 100
    """The job is aborted if a smaller share of the canaries succeeds."""
    online_first: bool = True
    """Offline agents get the job last."""


class AbortRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Aborts the job once this percentage of the agents that have ended failed or timed out ("silences")."""

    on: Literal["failures", "silences", "either"] = "either"
    percent: Annotated[float, Meta(gt=0, le=100)]
    min_agents: Annotated[int, Meta(ge=1, le=100_000)] = 1
    """The rule applies only after this many agents have ended."""


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout of a job and its abort rules."""

    rollout: Rollout = Rollout()
    abort: Annotated[tuple[AbortRule, ...], Meta(max_length=10)] = ()


class JobCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The agents of a job by status; canaries are included in the other counts too."""

    waiting: int = 0
    """Not notified of the job yet."""
    queued: int = 0
    """Notified, but not started."""
    in_progress: int = 0
    succeeded: int = 0
    failed: int = 0
    """Failed, or rejected the job."""
    timed_out: int = 0
    """Did not start or did not end in time."""
    canceled: int = 0
    canaries: int = 0
    """Canaries that were not canceled."""
    canaries_waiting: int = 0
    canaries_succeeded: int = 0
    canaries_lost: int = 0
    """Canaries that failed or timed out."""

    @property
    def open(self) -> int:
        return self.waiting + self.queued + self.in_progress

    @property
    def ended(self) -> int:
        """Agents that have succeeded, failed or timed out; canceled ones do not count."""
        return self.succeeded + self.failed + self.timed_out


class Pace(msgspec.Struct, frozen=True):
    """The number of agents that can be released (a fractional credit) as of a time."""

    credit: float
    at: datetime


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now: release so many more agents, or abort the job with a reason."""

    release: int
    pace: Pace
    abort: str | None = None


def next_step(policy: RolloutPolicy, counts: JobCounts, pace: Pace, now: datetime, *, most: int) -> RolloutStep:
    """Return the next step of the rollout, which releases at most `most` agents."""
    earned = _earned(policy.rollout, counts, pace, now)
    reason = _lost_canaries(policy.rollout, counts) or next(
        filter(None, (_violation(a, counts) for a in policy.abort)), None
    )
    if reason is not None:
        return RolloutStep(release=0, pace=Pace(earned, now), abort=reason)
    release = min(_releasable(counts), most)
    if policy.rollout.rate_per_minute is None:
        return RolloutStep(release=release, pace=Pace(earned, now))
    release = min(release, int(earned + 1e-9))  # six times a sixth must count as one
    return RolloutStep(release=release, pace=Pace(earned - release, now))


def rate(rollout: Rollout, succeeded: int) -> float:
    """Return the rate in agents a second after `succeeded` agents; infinite if the rollout has no rate."""
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


def _releasable(counts: JobCounts) -> int:
    """Return how many agents can be released: the canaries first, the others once all canaries have ended."""
    if counts.canaries_waiting:
        return counts.canaries_waiting
    ended = counts.canaries_succeeded + counts.canaries_lost
    return counts.waiting if ended >= counts.canaries else 0


def _lost_canaries(rollout: Rollout, counts: JobCounts) -> str | None:
    if rollout.canary and not counts.canaries and not counts.ended + counts.queued + counts.in_progress:
        return "no canary is left: all canaries were canceled"
    best = counts.canaries - counts.canaries_lost
    if not counts.canaries_lost or best * 100 >= rollout.canary_success_percent * counts.canaries:
        return None
    return (
        f"{counts.canaries_lost} of {counts.canaries} canaries did not succeed;"
        f" at least {rollout.canary_success_percent:g} % must succeed"
    )


def _violation(rule: AbortRule, counts: JobCounts) -> str | None:
    bad = {"failures": counts.failed, "silences": counts.timed_out, "either": counts.failed + counts.timed_out}[
        rule.on
    ]
    if not bad or counts.ended < rule.min_agents or bad * 100 < rule.percent * counts.ended:
        return None
    what = {"failures": "failed", "silences": "timed out", "either": "failed or timed out"}[rule.on]
    return f"{bad} of {counts.ended} agents {what}; the limit is {rule.percent:g} %"
