"""The MQTT messages about jobs that the platform sends to agents."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec


def queued(job: UUID, document: dict[str, Any], queued_at: datetime, updated_at: datetime, number: int) -> bytes:
    """Return the message that a job is queued, for `jobs/notify` and `jobs/notify-next`."""
    return _execution(job, document, queued_at, updated_at, number, "QUEUED")


def accepted(
    job: UUID, document: dict[str, Any], queued_at: datetime, started_at: datetime, number: int, token: str | None
) -> bytes:
    """Return the message with the job that an agent requested, for `jobs/start-next/accepted`."""
    return _execution(job, document, queued_at, started_at, number, "IN_PROGRESS", clientToken=token)


def rejected(token: str | None, now: datetime) -> bytes:
    """Return the message that no job is queued, for `jobs/start-next/rejected`."""
    return msgspec.json.encode({"timestamp": iso(now), "clientToken": token})


def iso(when: datetime) -> str:
    """Return a time in the agents' format: ISO 8601 in UTC, with milliseconds and a Z."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _execution(
    job: UUID,
    document: dict[str, Any],
    queued_at: datetime,
    updated_at: datetime,
    number: int,
    status: str,
    **more: Any,
) -> bytes:
    execution = {
        "jobId": str(job),
        "jobDocument": document,
        "queuedAt": iso(queued_at),
        "lastUpdatedAt": iso(updated_at),
        "versionNumber": 1,
        "executionNumber": number,
        "status": status,
    }
    return msgspec.json.encode({"execution": execution, "timestamp": iso(datetime.now(UTC)), **more})
