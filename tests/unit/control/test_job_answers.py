"""What is kept of an answer about a job."""

from iotistica.domain.control.jobs import parse_answer


def test_details_that_contradict_the_answer_are_kept() -> None:
    """The answer counts, and what its details say differently stays with them."""
    answer = parse_answer(
        {"status": "FAILED", "reason": "a", "status_details": {"reason": "b", "exitCode": 3}, "exit_code": 4}
    )
    assert (answer.reason, answer.exit_code) == ("a", 4)
    assert answer.details == {"reason": "b", "exit_code": 3}
