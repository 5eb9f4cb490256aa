"""Jobs: what an agent is asked to do once, what it answers, and what follows from that."""

from typing import Any, Final, Literal

import msgspec

from iotistica.domain import documents
from iotistica.errors import Invalid

Status = Literal["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED"]
"""Of one agent."""
Phase = Literal["QUEUED", "IN_PROGRESS", "PAUSED", "SUCCEEDED", "FAILED", "ABORTED", "CANCELED"]
"""Of a job as a whole: queued until its time, aborted by its own rules, canceled by somebody."""
OPEN: Final[tuple[Status, ...]] = ("QUEUED", "IN_PROGRESS")
SAID: Final[tuple[Status, ...]] = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED")
"""What agents may say."""
LATE: Final[tuple[Status, ...]] = ("SUCCEEDED", "FAILED")
"""What is believed of one that was given up."""
RETRIED: Final[tuple[Status, ...]] = ("FAILED", "TIMED_OUT")

DOCUMENT: Final = 32 << 10  # bytes of JSON
HEAD: Final = 16 << 10  # characters kept of the beginning of an output, and three times as many of its end
DETAILS: Final = 16 << 10  # bytes of JSON
VALUES: Final = 5000  # of an answer
REASON: Final = 1000  # characters
CHAIN: Final = 8  # templates, each upon the next


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of a job; None is nothing said."""

    status: Status
    execution_number: int | None = None
    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    reason: str | None = None
    executed_steps: int | None = None
    failed_step: str | None = None
    details: dict[str, Any] | None = None


_NAMES: Final = {"exitCode": "exit_code", "executedSteps": "executed_steps", "failedStep": "failed_step"}
_TEXTS: Final = {"stdout": 4 * HEAD, "stderr": 4 * HEAD, "reason": REASON, "failed_step": REASON}
_NUMBERS: Final = ("exit_code", "executed_steps")


def read(content: object) -> Answer:
    """An answer as agents write it, in either of its spellings; raises `Invalid`.

    `status_details` (or `statusDetails`) may hold what belongs beside it. Outputs are shortened, in their middle.
    """
    if not isinstance(content, dict):
        raise Invalid("an object with a status is expected")
    if documents.is_large(content, most=VALUES):
        raise Invalid(f"more than {VALUES} values")
    content = dict(documents.clean(content))
    status = content.get("status")
    if not isinstance(status, str) or status.upper() not in SAID:
        raise Invalid(f"one of {', '.join(SAID)}", "status")
    details = content.get("status_details", content.get("statusDetails"))
    details = dict(details) if isinstance(details, dict) else {"message": details} if details is not None else {}
    facts: dict[str, Any] = {}
    for source in (details, content):
        for key in (*_TEXTS, *_NUMBERS, *_NAMES):
            name, value = _NAMES.get(key, key), source.get(key)
            if value is None:
                continue
            if name in _NUMBERS:
                facts[name] = _number(value, key)
            elif isinstance(value, (str, int, float)):
                facts[name] = shorten(str(value), _TEXTS[name])
            else:
                raise Invalid("a text", key)
            details.pop(key, None)
    number = content.get("execution_number", content.get("executionNumber"))
    return Answer(
        status=status.upper(),  # type: ignore[arg-type]  # looked up above
        execution_number=None if number is None else _number(number, "executionNumber"),
        details=_bounded(details) or None,
        **facts,
    )


def shorten(text: str, most: int) -> str:
    """A text of at most so many characters: its beginning and its end, which says more."""
    if len(text) <= most:
        return text
    head = most // 4
    tail = most - head - 60
    return f"{text[:head]}\n… {len(text) - head - tail} characters left out …\n{text[-tail:]}"


def moved(old: Status, new: Status) -> bool:
    """Whether an answer says something new: progress, an end, or the late end of one that was given up."""
    if old == "TIMED_OUT":
        return new in LATE
    return old in OPEN


def is_tried_again(status: Status, number: int, retries: int) -> bool:
    """Whether the execution of that number, which ended so, is followed by another."""
    return status in RETRIED and number <= retries


def checked_document(document: object, path: str = "job_document") -> dict[str, Any]:
    """A job document, which must be kept as it is; raises `Invalid`."""
    if not isinstance(document, dict):
        raise Invalid("an object is expected", path)
    if documents.is_large(document, most=DOCUMENT) or len(msgspec.json.encode(document)) > DOCUMENT:
        raise Invalid(f"more than {DOCUMENT >> 10} KiB", path)
    if documents.clean(document) != document:
        raise Invalid(f"NUL characters, numbers beyond 64 bits or more than {documents.DEEPEST} levels", path)
    return document


def upon(base: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A document written upon another one, as RFC 7396 merges: null removes, lists are replaced."""
    made = dict(base)
    for key, value in document.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            below = made.get(key)
            made[key] = upon(below if isinstance(below, dict) else {}, value)
        else:
            made[key] = value
    return made


def _number(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        raise Invalid("a whole number of 32 bits", path)
    return value


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    """Too many of them must not keep an agent from saying that it has ended."""
    size = len(msgspec.json.encode(details))
    return details if size <= DETAILS else {"leftOut": f"{size} bytes; at most {DETAILS} are kept"}
