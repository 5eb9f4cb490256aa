"""What agents are told of their jobs by MQTT."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec


def queued(job: UUID, document: dict[str, Any], queued_at: datetime, updated_at: datetime, number: int) -> bytes:
    """That a job waits: on `jobs/notify` and `jobs/notify-next`."""
    return _execution(job, document, queued_at, updated_at, number, "QUEUED")


def accepted(
    job: UUID, document: dict[str, Any], queued_at: datetime, started_at: datetime, number: int, token: str | None
) -> bytes:
    """The job that an agent has asked for, on `jobs/start-next/accepted`."""
    return _execution(job, document, queued_at, started_at, number, "IN_PROGRESS", clientToken=token)


def rejected(token: str | None, now: datetime) -> bytes:
    """That no job waits, on `jobs/start-next/rejected`."""
    return msgspec.json.encode({"timestamp": iso(now), "clientToken": token})


def iso(when: datetime) -> str:
    """As agents write times: UTC, with milliseconds and a Z."""
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
