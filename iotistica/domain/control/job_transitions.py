"""The state machine of jobs: which status follows which, of a job as a whole and of a job for one agent."""

from typing import Final, Literal, NamedTuple

from iotistica.domain.control.jobs import Phase, Status
from iotistica.domain.control.rollouts import JobCounts

OPEN: Final[tuple[Status, ...]] = ("QUEUED", "IN_PROGRESS")
"""An agent may still answer."""
CLAIMED: Final[Status] = "IN_PROGRESS"
"""Follows `QUEUED` when the agent takes the job."""
CANCELED: Final[Status] = "CANCELED"
_ACCEPTED_LATE: Final[tuple[Status, ...]] = ("SUCCEEDED", "FAILED")
_RETRIED: Final[tuple[Status, ...]] = ("FAILED", "TIMED_OUT")
_RETRYING: Final[tuple[Phase, ...]] = ("IN_PROGRESS", "PAUSED")

JobAction = Literal["pause", "resume", "cancel"]


class Execution(NamedTuple):
    """How far one agent is with a job: its status, the number of the execution, and what the job allows."""

    status: Status
    number: int
    retries: int
    phase: Phase


def next_status(execution: Execution, result: Status) -> Status | None:
    """Return the status after an agent answered `result`, or after its time ran out (`TIMED_OUT`).

    `QUEUED` means that another execution follows. None means that nothing changes: the execution had ended. Only of
    an agent whose time ran out is the late end believed.
    """
    if execution.status == "TIMED_OUT":
        return result if result in _ACCEPTED_LATE else None
    if execution.status not in OPEN:
        return None
    if result in _RETRIED and execution.number <= execution.retries and execution.phase in _RETRYING:
        return "QUEUED"
    return result


def cancelable(*, force: bool) -> tuple[Status, ...]:
    """The statuses for one agent that a cancel ends; `force` also ends what the agent has begun."""
    return OPEN if force else ("QUEUED",)


class _Action(NamedTuple):
    allowed: tuple[Phase, ...]
    phase: Phase


ACTIONS: Final[dict[JobAction, _Action]] = {
    "pause": _Action(("IN_PROGRESS",), "PAUSED"),
    "resume": _Action(("PAUSED",), "IN_PROGRESS"),
    "cancel": _Action(("QUEUED", "IN_PROGRESS", "PAUSED"), "CANCELED"),
}
"""What a user can do to a job: in which phases, and the phase afterwards."""

STOPPED: Final[tuple[Phase, ...]] = ("ABORTED", "CANCELED")
"""No further agent begins the job; those that have begun may finish."""
ROLLING: Final[tuple[Phase, ...]] = ("QUEUED", "IN_PROGRESS")
"""The rollout releases further agents."""


def phase_after_step(phase: Phase, counts: JobCounts, *, aborted: bool) -> Phase:
    """Return the phase of a job after a step of its rollout, which may have aborted it."""
    if aborted:
        return "ABORTED"
    if phase in STOPPED or (phase == "PAUSED" and counts.open):
        return phase
    if counts.open:
        return "IN_PROGRESS"
    return "FAILED" if counts.failed or counts.timed_out or not counts.succeeded else "SUCCEEDED"


def is_complete(phase: Phase, counts: JobCounts) -> bool:
    """Whether a job has ended: stopped, or no agent is left that may still answer."""
    return phase in STOPPED or not counts.open
