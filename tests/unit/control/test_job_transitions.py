"""The state machine of jobs, for any sequence of answers, timeouts and cancels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.control import job_transitions as transitions
from iotistica.domain.control.job_transitions import Execution, next_status
from iotistica.domain.control.jobs import ANSWERABLE, Phase, Status
from iotistica.domain.control.rollouts import JobCounts

PHASES: tuple[Phase, ...] = ("QUEUED", "IN_PROGRESS", "PAUSED", "SUCCEEDED", "FAILED", "ABORTED", "CANCELED")
ENDS: tuple[Status, ...] = ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED")


@given(st.lists(st.sampled_from(ANSWERABLE), max_size=30), st.integers(0, 3), st.sampled_from(PHASES))
def test_no_sequence_of_results_runs_a_job_more_often_than_it_may(
    results: list[Status], retries: int, phase: Phase
) -> None:
    """An end is final but for the late end after a timeout, and there are at most `retries` more executions."""
    status: Status = "QUEUED"
    number = 1
    for result in results:
        before = status
        new = next_status(Execution(status, number, retries, phase), result)
        if new is None:
            assert before in ENDS
            continue
        assert before in transitions.OPEN or (before == "TIMED_OUT" and new in ("SUCCEEDED", "FAILED"))
        if new == "QUEUED":
            number += 1
            assert result in ("FAILED", "TIMED_OUT")
            assert phase in ("IN_PROGRESS", "PAUSED")
        else:
            assert new == result
        status = new
    assert number <= retries + 1


@pytest.mark.parametrize("status", ENDS)
def test_a_cancel_ends_nothing_that_has_ended(status: Status) -> None:
    """By force or not; and only by force what an agent has begun."""
    assert status not in transitions.cancelable(force=True)
    assert transitions.cancelable(force=False) == ("QUEUED",)


@pytest.mark.parametrize(
    ("phase", "counts", "aborted", "after"),
    [
        ("QUEUED", JobCounts(waiting=1), False, "IN_PROGRESS"),
        ("IN_PROGRESS", JobCounts(in_progress=1), True, "ABORTED"),
        ("PAUSED", JobCounts(queued=1), False, "PAUSED"),
        ("PAUSED", JobCounts(succeeded=1), False, "SUCCEEDED"),
        ("IN_PROGRESS", JobCounts(succeeded=2), False, "SUCCEEDED"),
        ("IN_PROGRESS", JobCounts(succeeded=2, failed=1), False, "FAILED"),
        ("IN_PROGRESS", JobCounts(succeeded=2, timed_out=1), False, "FAILED"),
        ("IN_PROGRESS", JobCounts(canceled=1), False, "FAILED"),
        ("CANCELED", JobCounts(succeeded=1), False, "CANCELED"),
        ("ABORTED", JobCounts(in_progress=1), False, "ABORTED"),
    ],
)
def test_the_phase_of_a_job_follows_from_its_agents(
    phase: Phase, counts: JobCounts, aborted: bool, after: Phase
) -> None:
    """A stopped job stays stopped, a paused one waits for the agents that have begun."""
    assert transitions.phase_after_step(phase, counts, aborted=aborted) == after
