"""Updates of an agent's software: the signed command, and the status of the update after each answer."""

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
"""The statuses of an unfinished update, in order; all other statuses are final."""
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
"""The update status for each event that the public agent publishes on `agent/status`."""
VERSION: Final = re.compile(r"\d{1,6}(?:\.\d{1,6}){1,3}(?:-[0-9A-Za-z.-]{1,40})?|latest")
STARTED_TIMEOUT: Final = timedelta(minutes=30)
"""An update that started this long ago and has not ended counts as timed out."""
CLOCK_SKEW: Final = timedelta(minutes=10)
"""How far an agent's clock can be behind the platform's; it matters for the time of an answer."""
REASON: Final = 500  # characters of a reason


class UpdateCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The update command for an agent; times have whole milliseconds, like the times in the signature."""

    version: str
    issued_at: datetime
    expires_at: datetime
    scheduled_at: datetime | None = None
    force: bool = False


def payload(command: UpdateCommand, secret: str) -> bytes:
    """Return the MQTT payload of the command; signed unless `secret` is empty."""
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
    """Return the hex HMAC-SHA256 of `update|version|issued_at|expires_at|scheduled_time|force`.

    A missing field is an empty string.
    """
    force = {True: "true", False: "false"}.get(content.get("force"), "")  # type: ignore[arg-type]
    fields = (content.get(name) or "" for name in ("issued_at", "expires_at", "scheduled_time"))
    text = "|".join(("update", content["version"], *map(str, fields), force))
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()


def status_after(old: Status, answer: str) -> Status | None:
    """Return the status after an answer; None if nothing changes: the answer is old, or the update has ended."""
    new = STATUS_BY_ANSWER.get(answer)
    if new is None or old not in OPEN:
        return None
    return new if new not in OPEN or OPEN.index(new) > OPEN.index(old) else None


def answers_command(sent_at: datetime | None, issued_at: datetime) -> bool:
    """Whether an answer can belong to the command; the broker retains answers, so old ones are delivered again."""
    return sent_at is None or sent_at > issued_at - CLOCK_SKEW


def reason_of(answer: dict[str, Any]) -> str | None:
    """Return the reason, error and exit code in an answer as one text; None if it has none of them."""
    parts = [f"exit code {answer['exit_code']}"] if isinstance(answer.get("exit_code"), int) else []
    parts = [answer[key] for key in ("reason", "error") if isinstance(answer.get(key), str)] + parts
    return ", ".join(parts)[:REASON].replace("\0", "") or None


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
