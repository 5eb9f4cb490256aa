"""Jobs: parses the answers of agents, decides status changes and retries, and checks job documents."""

import re
from typing import Any, Final, Literal

import msgspec

from iotistica.domain import documents
from iotistica.errors import Invalid

Status = Literal["QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED"]
"""The status of a job on one agent."""
Phase = Literal["QUEUED", "IN_PROGRESS", "PAUSED", "SUCCEEDED", "FAILED", "ABORTED", "CANCELED"]
"""The status of a whole job: QUEUED until its start time, ABORTED by its abort rules, CANCELED by a user."""
ANSWERABLE: Final[tuple[Status, ...]] = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED")
"""The statuses that agents can answer."""

DOCUMENT_BYTES: Final = 32 << 10  # bytes of JSON
OUTPUT_HEAD: Final = 16 << 10  # characters kept of the beginning of an output, and three times as many of its end
DETAILS_BYTES: Final = 16 << 10  # bytes of JSON
VALUES_LIMIT: Final = 5000  # JSON values of an answer
REASON_LENGTH: Final = 1000  # characters
TEMPLATE_CHAIN_LIMIT: Final = 8  # templates, each based on the next


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's answer about a job; a field is None if the answer does not have it."""

    status: Status
    execution_number: int | None = None
    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    reason: str | None = None
    executed_steps: int | None = None
    failed_step: str | None = None
    details: dict[str, Any] | None = None


_SPELLINGS: Final[dict[str, Status]] = {
    "SUCCESS": "SUCCEEDED",
    "COMPLETED": "SUCCEEDED",
    "FAILURE": "FAILED",
    "ERROR": "FAILED",
    "TIMEOUT": "TIMED_OUT",
    "TIMEDOUT": "TIMED_OUT",
    "CANCELLED": "CANCELED",
    "RUNNING": "IN_PROGRESS",
}
_NAMES: Final = {"exitCode": "exit_code", "executedSteps": "executed_steps", "failedStep": "failed_step"}
_TEXTS: Final = {
    "stdout": 4 * OUTPUT_HEAD,
    "stderr": 4 * OUTPUT_HEAD,
    "reason": REASON_LENGTH,
    "failed_step": REASON_LENGTH,
}
_NUMBERS: Final = ("exit_code", "executed_steps", "execution_number")
_KEYS: Final = (*_TEXTS, *_NUMBERS, *_NAMES, "executionNumber")
_DIGITS: Final = re.compile(r"\s*[-+]?[0-9]{1,19}\s*")


def parse_answer(content: object) -> JobAnswer:
    """Parse an answer with camelCase or snake_case keys; raises `Invalid` if it names no status.

    Every field can also be inside `status_details` (or `statusDetails`). Long outputs are shortened in the middle.
    A field that is not what it should be goes to the details, so that it does not hide that the job has ended.
    """
    if not isinstance(content, dict):
        raise Invalid("The answer must be an object with a status.")
    status = _status(content.get("status"))
    details: dict[str, Any] = {}
    if documents.is_large(content, most=VALUES_LIMIT):
        content = {key: value for key, value in content.items() if not isinstance(value, (dict, list))}
        details = {"leftOut": f"objects and lists: the answer has more than {VALUES_LIMIT} values"}
    content = dict(documents.clean(content))
    sent_details = content.get("status_details", content.get("statusDetails"))
    if isinstance(sent_details, dict):
        details |= sent_details
    elif sent_details is not None:
        details["message"] = sent_details
    facts: dict[str, Any] = {}
    for source in (dict(details), content):
        for key in _KEYS:
            value = source.get(key)
            if value is None:
                continue
            name = _NAMES.get(key, "execution_number" if key == "executionNumber" else key)
            fact = _number(value) if name in _NUMBERS else _text(value, _TEXTS[name])
            if fact is None:
                details[key] = value
            elif facts.get(name, fact) == fact:
                facts[name] = fact
                details.pop(key, None)
            else:  # the answer and its details say different things: the answer counts, the other is kept
                details.setdefault(key, facts[name])
                facts[name] = fact
    return JobAnswer(status=status, details=_bounded(details) or None, **facts)


def _status(value: Any) -> Status:
    if isinstance(value, str):
        word = value.strip().upper().replace("-", "_").replace(" ", "_")
        word = _SPELLINGS.get(word, word)
        for status in ANSWERABLE:
            if word == status:
                return status
    raise Invalid(f"must be one of {', '.join(ANSWERABLE)}", "status")


def _text(value: Any, most: int) -> str | None:
    return shorten(str(value), most) if isinstance(value, (str, int, float)) else None


def shorten(text: str, most: int) -> str:
    """Shorten a text to at most `most` characters: its beginning (a quarter), and its end, which says more."""
    if len(text) <= most:
        return text
    head = most // 4
    tail = most - head - 60
    return f"{text[:head]}\n… {len(text) - head - tail} characters left out …\n{text[-tail:]}"


def validate_document(document: object, path: str = "job_document") -> dict[str, Any]:
    """Return the job document if it can be stored unchanged; raises `Invalid` otherwise."""
    if not isinstance(document, dict):
        raise Invalid("must be an object", path)
    if documents.is_large(document, most=DOCUMENT_BYTES) or len(msgspec.json.encode(document)) > DOCUMENT_BYTES:
        raise Invalid(f"must have at most {DOCUMENT_BYTES >> 10} KiB", path)
    if documents.clean(document) != document:
        limits = f"no numbers of more than 64 bits and at most {documents.DEEPEST} levels"
        raise Invalid(f"must have no NUL characters, {limits}", path)
    return document


def merge_patch(base: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return `base` patched with `document` as in RFC 7396: null removes a key, lists are replaced."""
    merged = dict(base)
    for key, value in document.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge_patch(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _number(value: Any) -> int | None:
    """Return a whole number of 64 bits, also if it was sent as `"1"` or `1.0`; None for anything else."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        return None
    return value


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    """Drop details that are too large, so that the agent's answer itself is still accepted."""
    size = len(msgspec.json.encode(details))
    return details if size <= DETAILS_BYTES else {"leftOut": f"{size} bytes; at most {DETAILS_BYTES} are stored"}
