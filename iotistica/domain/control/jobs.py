"""Jobs: what an agent is asked to do once, what it answers, and what follows from that."""

from typing import Any, Final, Literal

import msgspec

from iotistica.domain import documents
from iotistica.errors import Invalid

Status = Literal["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED"]
"""Of one agent."""
Phase = Literal["QUEUED", "IN_PROGRESS", "PAUSED", "SUCCEEDED", "FAILED", "ABORTED", "CANCELED"]
"""Of a job as a whole: queued until its time, aborted by its own rules, canceled by somebody."""
ANSWERABLE: Final[tuple[Status, ...]] = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED")
"""What agents may say."""

DOCUMENT_BYTES: Final = 32 << 10  # bytes of JSON
OUTPUT_HEAD: Final = 16 << 10  # characters kept of the beginning of an output, and three times as many of its end
DETAILS_BYTES: Final = 16 << 10  # bytes of JSON
VALUES_LIMIT: Final = 5000  # of an answer
REASON_LENGTH: Final = 1000  # characters
TEMPLATE_CHAIN_LIMIT: Final = 8  # templates, each upon the next


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
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
_TEXTS: Final = {
    "stdout": 4 * OUTPUT_HEAD,
    "stderr": 4 * OUTPUT_HEAD,
    "reason": REASON_LENGTH,
    "failed_step": REASON_LENGTH,
}
_NUMBERS: Final = ("exit_code", "executed_steps")


def parse_answer(content: object) -> JobAnswer:
    """An answer as agents write it, in either of its spellings; raises `Invalid`.

    `status_details` (or `statusDetails`) may hold what belongs beside it. Outputs are shortened, in their middle.
    """
    if not isinstance(content, dict):
        raise Invalid("an object with a status is expected")
    if documents.is_large(content, most=VALUES_LIMIT):
        raise Invalid(f"more than {VALUES_LIMIT} values")
    content = dict(documents.clean(content))
    status = content.get("status")
    if not isinstance(status, str) or status.upper() not in ANSWERABLE:
        raise Invalid(f"one of {', '.join(ANSWERABLE)}", "status")
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
    return JobAnswer(
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


def validate_document(document: object, path: str = "job_document") -> dict[str, Any]:
    """A job document, which must be kept as it is; raises `Invalid`."""
    if not isinstance(document, dict):
        raise Invalid("an object is expected", path)
    if documents.is_large(document, most=DOCUMENT_BYTES) or len(msgspec.json.encode(document)) > DOCUMENT_BYTES:
        raise Invalid(f"more than {DOCUMENT_BYTES >> 10} KiB", path)
    if documents.clean(document) != document:
        raise Invalid(f"NUL characters, numbers beyond 64 bits or more than {documents.DEEPEST} levels", path)
    return document


def merge_patch(base: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A document written upon another one, as RFC 7396 merges: null removes, lists are replaced."""
    made = dict(base)
    for key, value in document.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            below = made.get(key)
            made[key] = merge_patch(below if isinstance(below, dict) else {}, value)
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
    return details if size <= DETAILS_BYTES else {"leftOut": f"{size} bytes; at most {DETAILS_BYTES} are kept"}
