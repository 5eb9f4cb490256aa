"""Tests of the state machine of jobs with arbitrary sequences of answers, timeouts and cancels."""

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
    """An end is final, except for a late end after a timeout; there are at most `retries` more executions."""
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
    """With or without force; only force cancels a job that an agent has started."""
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
    """A stopped job stays stopped; a paused job waits for the agents that have started it."""
    assert transitions.phase_after_step(phase, counts, aborted=aborted) == after
