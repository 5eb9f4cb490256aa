"""The state machine of jobs: the phases of a job as a whole, and the status of a job on one agent."""

from typing import Final, Literal, NamedTuple

from iotistica.domain.control.jobs import Phase, Status
from iotistica.domain.control.rollouts import JobCounts

OPEN: Final[tuple[Status, ...]] = ("QUEUED", "IN_PROGRESS")
"""The statuses in which an agent can still answer."""
CLAIMED: Final[Status] = "IN_PROGRESS"
"""The status after `QUEUED`, when the agent claims the job."""
CANCELED: Final[Status] = "CANCELED"
_ACCEPTED_LATE: Final[tuple[Status, ...]] = ("SUCCEEDED", "FAILED")
_RETRIED: Final[tuple[Status, ...]] = ("FAILED", "TIMED_OUT")
_RETRYING: Final[tuple[Phase, ...]] = ("IN_PROGRESS", "PAUSED")

JobAction = Literal["pause", "resume", "cancel"]


class Execution(NamedTuple):
    """An execution of a job on one agent: its status and number, and the job's retries and phase."""

    status: Status
    number: int
    retries: int
    phase: Phase


def next_status(execution: Execution, result: Status) -> Status | None:
    """Return the status after an agent answered `result`, or after its timeout (`TIMED_OUT`).

    `QUEUED` means that another execution follows. None means that nothing changes, since the execution had ended. A
    late `SUCCEEDED` or `FAILED` is accepted only after a timeout.
    """
    if execution.status == "TIMED_OUT":
        return result if result in _ACCEPTED_LATE else None
    if execution.status not in OPEN:
        return None
    if result in _RETRIED and execution.number <= execution.retries and execution.phase in _RETRYING:
        return "QUEUED"
    return result


def cancelable(*, force: bool) -> tuple[Status, ...]:
    """Return the statuses that a cancel ends; `force` also cancels jobs that an agent has started."""
    return OPEN if force else ("QUEUED",)


class _Action(NamedTuple):
    allowed: tuple[Phase, ...]
    phase: Phase


ACTIONS: Final[dict[JobAction, _Action]] = {
    "pause": _Action(("IN_PROGRESS",), "PAUSED"),
    "resume": _Action(("PAUSED",), "IN_PROGRESS"),
    "cancel": _Action(("QUEUED", "IN_PROGRESS", "PAUSED"), "CANCELED"),
}
"""The actions of users on jobs: the phases in which each is allowed, and the phase afterwards."""

STOPPED: Final[tuple[Phase, ...]] = ("ABORTED", "CANCELED")
"""Phases in which no further agent starts the job; agents that have started it can finish."""
ROLLING: Final[tuple[Phase, ...]] = ("QUEUED", "IN_PROGRESS")
"""Phases in which the rollout releases further agents."""


def phase_after_step(phase: Phase, counts: JobCounts, *, aborted: bool) -> Phase:
    """Return the phase of a job after a step of its rollout; `aborted` if the step aborted it."""
    if aborted:
        return "ABORTED"
    if phase in STOPPED or (phase == "PAUSED" and counts.open):
        return phase
    if counts.open:
        return "IN_PROGRESS"
    return "FAILED" if counts.failed or counts.timed_out or not counts.succeeded else "SUCCEEDED"


def is_complete(phase: Phase, counts: JobCounts) -> bool:
    """Whether a job has ended: it is stopped, or no agent can still answer."""
    return phase in STOPPED or not counts.open
