"""The update of an agent's own software: the command, and how its answers move it on."""

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

Status = Literal[
    "commanded",
    "received",
    "scheduled",
    "started",
    "succeeded",
    "failed",
    "rejected",
    "skipped",
    "expired",
    "timed_out",
    "superseded",
]
OPEN: Final[tuple[Status, ...]] = ("commanded", "received", "scheduled", "started")
"""In the order in which an update goes through them; the others are its ends."""
STATUS_BY_ANSWER: Final[dict[str, Status]] = {
    "update_command_received": "received",
    "update_scheduled": "scheduled",
    "preflight_started": "started",
    "update_started": "started",
    "update_succeeded": "succeeded",
    "update_failed": "failed",
    "update_rejected": "rejected",
    "update_skipped": "skipped",
}
"""What the public agent says on `agent/status`, and what it means."""
VERSION: Final = re.compile(r"\d{1,6}(?:\.\d{1,6}){1,3}(?:-[0-9A-Za-z.-]{1,40})?|latest")
STARTED_TIMEOUT: Final = timedelta(minutes=30)
"""Of an update that has started: then it is taken for lost."""
CLOCK_SKEW: Final = timedelta(minutes=10)
"""That an agent's clock may be behind ours, when it says when it answered."""
REASON: Final = 500  # characters


class UpdateCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is told; times in whole milliseconds, as its signature has them."""

    version: str
    issued_at: datetime
    expires_at: datetime
    scheduled_at: datetime | None = None
    force: bool = False


def payload(command: UpdateCommand, secret: str) -> bytes:
    """The command as it is published; signed if there is a secret."""
    content: dict[str, Any] = {
        "action": "update",
        "version": command.version,
        "issued_at": _ms(command.issued_at),
        "expires_at": _ms(command.expires_at),
    }
    if command.scheduled_at is not None:
        content["scheduled_time"] = _iso(command.scheduled_at)
    if command.force:
        content["force"] = True
    if secret:
        content["signature"] = signature(content, secret)
    return msgspec.json.encode(content)


def signature(content: dict[str, Any], secret: str) -> str:
    """HMAC-SHA256 in hex over `update|version|issued_at|expires_at|scheduled_time|force`, what is absent empty."""
    force = {True: "true", False: "false"}.get(content.get("force"), "")  # type: ignore[arg-type]
    fields = (content.get(name) or "" for name in ("issued_at", "expires_at", "scheduled_time"))
    text = "|".join(("update", content["version"], *map(str, fields), force))
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()


def status_after(old: Status, answer: str) -> Status | None:
    """The status after an answer; None if that says nothing new: one that came before, or after the end."""
    new = STATUS_BY_ANSWER.get(answer)
    if new is None or old not in OPEN:
        return None
    return new if new not in OPEN or OPEN.index(new) > OPEN.index(old) else None


def answers_command(said_at: datetime | None, issued_at: datetime) -> bool:
    """Whether an answer can be one to a command: it is retained by the broker, and an old one comes again."""
    return said_at is None or said_at > issued_at - CLOCK_SKEW


def reason_of(answer: dict[str, Any]) -> str | None:
    """What an answer says besides: a reason, an error, an exit code."""
    parts = [f"exit code {answer['exit_code']}"] if isinstance(answer.get("exit_code"), int) else []
    parts = [answer[key] for key in ("reason", "error") if isinstance(answer.get(key), str)] + parts
    return ", ".join(parts)[:REASON].replace("\0", "") or None


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
