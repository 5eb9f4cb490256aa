"""Tests of the arithmetic of rollouts with a deterministic simulation of agents and of time."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotistica.background.rollouts import TenantTurns
from iotistica.domain.control import rollouts
from iotistica.domain.control.rollouts import BURST, AbortRule, JobCounts, Pace, Rollout, RolloutPolicy
from iotistica.domain.ids import TenantId

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SILENCE = 300  # seconds until the job of a silent agent times out


@dataclass
class Agent:
    """An agent that ends with status `end`, `seconds` after it was notified."""

    end: str
    seconds: int
    is_canary: bool = False
    told: int | None = None

    def status(self, now: int) -> str:
        if self.told is None:
            return "waiting"
        took = SILENCE if self.end == "timed_out" else self.seconds
        return "in_progress" if now < self.told + took else self.end


@dataclass
class Simulation:
    """A rollout in steps, as the platform does them, by default one a second."""

    policy: RolloutPolicy
    agents: list[Agent]
    second: int = 0
    aborted_at: int | None = None
    reason: str | None = None
    releases: list[tuple[int, int]] = field(default_factory=list)
    history: list[JobCounts] = field(default_factory=list)

    def __post_init__(self) -> None:
        for agent in self.agents[: self.policy.rollout.canary]:
            agent.is_canary = True
        self.pace = Pace(1, BEGIN)

    def counts(self) -> JobCounts:
        number: dict[str, int] = {}
        for agent in self.agents:
            status = agent.status(self.second)
            for name in (status, *((f"canaries_{status}",) if agent.is_canary else ())):
                number[name] = number.get(name, 0) + 1
        lost = number.pop("canaries_failed", 0) + number.pop("canaries_timed_out", 0)
        number.pop("canaries_in_progress", 0)
        canaries = sum(agent.is_canary for agent in self.agents)
        return JobCounts(**number, canaries=canaries, canaries_lost=lost)

    def run(self, seconds: int, every: int = 1) -> "Simulation":
        for second in range(0, seconds, every):
            self.second = second
            counts = self.counts()
            self.history.append(counts)
            now = BEGIN + timedelta(seconds=second)
            step = rollouts.next_step(self.policy, counts, self.pace, now, most=500)
            self.pace = step.pace
            if step.abort is not None:
                self.aborted_at, self.reason = second, step.abort
                assert step.release == 0
                break
            waiting = [agent for agent in self.agents if agent.told is None]
            for agent in waiting[: step.release]:
                agent.told = second
            if step.release:
                self.releases.append((second, step.release))
            if not self.counts().open:
                break
        return self

    @property
    def told(self) -> int:
        return sum(agent.told is not None for agent in self.agents)


def policy(*abort: AbortRule, **rollout: Any) -> RolloutPolicy:
    return RolloutPolicy(rollout=Rollout(**rollout), abort=abort)


def fleet(**ends: int) -> list[Agent]:
    """Return agents with these numbers of ends, shuffled in a reproducible way."""
    agents = [Agent(end, 20) for end, number in ends.items() for _ in range(number)]
    random.Random(7).shuffle(agents)
    return agents


def test_without_a_rate_everybody_is_told_at_once() -> None:
    """In steps of at most 500 agents."""
    done = Simulation(policy(), fleet(succeeded=1200)).run(100)
    assert done.releases == [(0, 500), (1, 500), (2, 200)]


def test_a_constant_rate_is_kept() -> None:
    """With ten a minute, one agent is notified at once, then one every six seconds."""
    done = Simulation(policy(rate_per_minute=10), fleet(succeeded=30)).run(600)
    assert [second for second, _ in done.releases][:5] == [0, 6, 12, 18, 24]
    assert done.told == 30


def test_a_rate_grows_with_those_that_succeeded() -> None:
    """The rate doubles after each ten agents, up to the maximum of the platform."""
    rule = Rollout(rate_per_minute=60, growth_factor=2, growth_after=10)
    assert [rollouts.rate(rule, n) for n in (0, 9, 10, 20, 99)] == [1, 1, 2, 4, 512]
    assert rollouts.rate(rule, 10**9) == rollouts.FASTEST / 60
    quick = Simulation(RolloutPolicy(rollout=rule), fleet(succeeded=300)).run(1000).second
    slow = Simulation(policy(rate_per_minute=60), fleet(succeeded=300)).run(1000).second
    assert quick < slow / 3


def test_failures_call_it_off_at_the_first_step_that_shows_them() -> None:
    """Once a fifth of at least ten agents failed, that step aborts the job, and no further agent is notified."""
    rule = AbortRule(on="failures", percent=20, min_agents=10)
    done = Simulation(policy(rule, rate_per_minute=60), fleet(succeeded=60, failed=40)).run(1000)
    assert done.aborted_at is not None
    passed = [c.ended >= 10 and c.failed * 5 >= c.ended for c in done.history]
    assert passed == [False] * (len(passed) - 1) + [True]
    assert done.reason == f"{done.history[-1].failed} of {done.history[-1].ended} agents failed; the limit is 20 %"
    assert done.told < 40


def test_silence_calls_it_off_as_failures_do() -> None:
    """A job for a silent fleet does not run for ever."""
    rule = AbortRule(on="silences", percent=50, min_agents=5)
    done = Simulation(policy(rule, rate_per_minute=6), fleet(timed_out=1000)).run(100_000)
    assert done.aborted_at == SILENCE + 40  # the fifth agent was notified after 40 s
    assert done.told == (SILENCE + 40) // 10
    assert "5 of 5 agents timed out" in str(done.reason)


def test_each_rule_looks_at_its_own_kind() -> None:
    """Failures do not count for a rule on silences, and the other way round."""
    silent = AbortRule(on="silences", percent=1, min_agents=1)
    assert Simulation(policy(silent), fleet(failed=50)).run(1000).aborted_at is None
    failing = AbortRule(on="failures", percent=1, min_agents=1)
    assert Simulation(policy(failing), fleet(timed_out=50)).run(1000).aborted_at is None
    both = Simulation(policy(AbortRule(percent=50)), fleet(timed_out=25, failed=25)).run(1000)
    assert both.aborted_at == 20


@pytest.mark.parametrize(("end", "after"), [("failed", 20), ("timed_out", SILENCE)])
def test_a_lost_canary_keeps_the_others_from_it(end: str, after: int) -> None:
    """The job is aborted even without an abort rule, and no other agent was notified."""
    agents = [Agent("succeeded", 5), Agent(end, 20), Agent("succeeded", 5), *fleet(succeeded=50)]
    done = Simulation(policy(canary=3), agents).run(2000)
    assert (done.told, done.aborted_at) == (3, after)
    assert done.reason == "1 of 3 canaries did not succeed; at least 100 % must succeed"


def test_the_rest_waits_until_every_canary_has_ended() -> None:
    """Two successes of three are enough if the policy requires 60 %."""
    agents = [Agent("succeeded", 5), Agent("failed", 20), Agent("succeeded", 90), *fleet(succeeded=50)]
    done = Simulation(policy(canary=3, canary_success_percent=60), agents).run(2000)
    assert done.aborted_at is None
    assert done.releases == [(0, 3), (90, 50)]


def test_after_a_pause_nothing_is_made_up_for() -> None:
    """After an hour of downtime the platform does not notify an hour's worth of agents at once."""
    rule, counts = policy(rate_per_minute=600), JobCounts(waiting=10_000)
    step = rollouts.next_step(rule, counts, Pace(0, BEGIN), BEGIN + timedelta(hours=1), most=500)
    assert step.release == 10 * BURST
    backwards = rollouts.next_step(rule, counts, Pace(0, BEGIN), BEGIN - timedelta(hours=1), most=500)
    assert backwards.release == 0


ENDS = st.lists(
    st.builds(Agent, st.sampled_from(["succeeded", "failed", "timed_out"]), st.integers(1, 400)), max_size=80
)
RULES = st.lists(
    st.builds(
        AbortRule,
        on=st.sampled_from(["failures", "silences", "either"]),
        percent=st.integers(1, 100).map(float),
        min_agents=st.integers(1, 30),
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(
    agents=ENDS,
    rules=RULES,
    rate=st.one_of(st.none(), st.floats(1, 2000)),
    growth=st.floats(1, 4),
    canary=st.integers(0, 10),
    every=st.integers(1, 7),
)
def test_no_rollout_breaks_its_own_rules(
    agents: list[Agent], rules: list[AbortRule], rate: float | None, growth: float, canary: int, every: int
) -> None:
    """For any behaviour of agents, the rate, the canaries and the rules hold at each step, and the job ends."""
    rule = Rollout(rate_per_minute=rate, growth_factor=growth, growth_after=5, canary=canary)
    done = Simulation(RolloutPolicy(rollout=rule, abort=tuple(rules)), agents).run(20_000, every)
    if done.aborted_at is None:
        assert done.told == len(agents)
        assert not done.counts().open
    for counts in done.history[:-1] if done.aborted_at is not None else done.history:
        for abort_rule in rules:
            bad = {"failures": counts.failed, "silences": counts.timed_out}.get(
                abort_rule.on, counts.failed + counts.timed_out
            )
            assert (
                not bad
                or counts.ended < abort_rule.min_agents
                or bad / counts.ended * 100 < abort_rule.percent + 1e-9
            )
    first = [agent for agent in agents if agent.is_canary]
    others = [agent.told for agent in agents if not agent.is_canary and agent.told is not None]
    if first and others:
        assert all(agent.told is not None and agent.status(min(others)) != "in_progress" for agent in first)
    if rate is not None and growth == 1:
        per_second, burst = rate / 60, max(1.0, rate / 60 * BURST)
        for at, (begin, _) in enumerate(done.releases):
            for to in range(at, len(done.releases)):
                end = done.releases[to][0]
                told = sum(number for _, number in done.releases[at : to + 1])
                assert told <= burst + per_second * (end - begin) + 1e-6


def test_a_rollout_without_a_canary_left_is_called_off() -> None:
    """Without a canary, nothing shows whether the other agents can follow."""
    step = rollouts.next_step(policy(canary=2), JobCounts(waiting=5, canceled=2), Pace(1, BEGIN), BEGIN, most=500)
    assert (step.release, step.abort) == (0, "no canary is left: all canaries were canceled")


def test_every_tenant_has_its_turn() -> None:
    """The second job of a tenant with a thousand jobs comes after the first job of every other tenant."""
    turns = TenantTurns()
    many, one = [(uuid4(), TenantId("a")) for _ in range(1000)], (uuid4(), TenantId("b"))
    assert one[0] in turns.order([*many, one])[:2]
    seen = set()
    for _ in range(500):  # two jobs a turn
        for job in turns.order([*many, one])[:2]:
            turns.record_step(job)
            seen.add(job)
    assert len(seen) == 501, "each turn does another one of the thousand jobs"
    few = [(uuid4(), TenantId(str(n))) for n in range(10)]
    moved = set()
    for _ in range(3):  # four of ten a turn
        for job in turns.order(few)[:4]:
            turns.record_step(job)
            moved.add(job)
    assert len(moved) == 10, "the tenants that have waited longest come first"


def test_a_canary_that_succeeded_and_is_gone_calls_nothing_off() -> None:
    """The agent of the canary was deleted; the other agents were released already."""
    counts = JobCounts(waiting=5, succeeded=3)
    assert rollouts.next_step(policy(canary=1), counts, Pace(1, BEGIN), BEGIN, most=500).abort is None
