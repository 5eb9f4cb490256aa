"""Finds the agents whose state a rule can be about: their status, failed jobs and refused messages."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx, fetch_rows

FOUND_LIMIT: Final = 100_000  # findings of one kind that are returned


class StatusFinding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    agent_uuid: UUID
    status: str
    since: datetime
    flapping: bool


STATUSES: Final = """
SELECT agent_uuid, status, since, flapping FROM agent_presence WHERE tenant_id = ANY(%(tenants)s) LIMIT %(most)s
"""


async def statuses(tx: Tx, tenants: Sequence[TenantId]) -> list[StatusFinding]:
    """Return the status of every agent of these tenants that was ever heard of."""
    return await fetch_rows(tx, StatusFinding, STATUSES, {"tenants": list(tenants), "most": FOUND_LIMIT})


class JobFinding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    agent_uuid: UUID
    job_id: UUID
    job_name: str
    status: str
    since: datetime
    reason: str | None


FAILED_JOBS: Final = """
SELECT s.agent_uuid, s.job_id, e.job_name, s.status, s.completed_at AS since, s.reason
FROM agent_job_status s JOIN job_executions e USING (tenant_id, job_id)
WHERE s.tenant_id = ANY(%(tenants)s) AND s.status IN ('FAILED', 'TIMED_OUT', 'REJECTED')
  AND s.completed_at >= %(since)s
ORDER BY s.completed_at DESC LIMIT %(most)s
"""


async def failed_jobs(tx: Tx, tenants: Sequence[TenantId], since: datetime) -> list[JobFinding]:
    """Return the jobs of agents that have failed since a time and have not succeeded after it."""
    parameters = {"tenants": list(tenants), "since": since, "most": FOUND_LIMIT}
    return await fetch_rows(tx, JobFinding, FAILED_JOBS, parameters)


class RefusalFinding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    agent_uuid: UUID
    at: datetime
    times: int


REFUSALS: Final = """
SELECT agent_uuid, coalesce(last_at, at) AS at, times FROM agent_timeline
WHERE tenant_id = ANY(%(tenants)s) AND kind = 'message.refused'
  AND at >= %(since)s - interval '1 hour' AND coalesce(last_at, at) >= %(since)s
ORDER BY id DESC LIMIT %(most)s
"""


async def refusals(tx: Tx, tenants: Sequence[TenantId], since: datetime) -> list[RefusalFinding]:
    """Return how many messages of agents were refused since a time, as the timelines count them by the hour."""
    parameters = {"tenants": list(tenants), "since": since, "most": FOUND_LIMIT}
    return await fetch_rows(tx, RefusalFinding, REFUSALS, parameters)


PLATFORM_SINCE: Final = "SELECT since FROM presence_watch"


async def platform_since(tx: Tx) -> datetime | None:
    """Return since when the platform accepts messages without a pause; None if it never did."""
    row = await (await tx.execute(PLATFORM_SINCE)).fetchone()
    return row[0] if row else None
