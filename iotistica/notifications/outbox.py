"""Delivers the notices of the outbox: at least once, in order for each target, and no target delays another."""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.alerts import retries
from iotistica.domain.alerts.targets import TargetSpec
from iotistica.errors import Unavailable
from iotistica.instruments import NOTICES
from iotistica.notifications.channels import Channels
from iotistica.notifications.http_client import Answer
from iotistica.storage import lease
from iotistica.storage.alerts import notices, targets
from iotistica.storage.alerts.notices import Attempt, DueNotice
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

LEASE: Final = "notifications"
LOOK_SECONDS: Final = 0.3  # seconds between looks for notices that are due
TARGETS: Final = 200  # targets that are served at a time
EACH: Final = 20  # notices of a target that are taken at a time; e-mails combine so many


class Outbox:
    """Sends the notices of all tenants while this process holds the lease."""

    def __init__(self, redis: Redis, database: Database, box: SecretBox, channels: Channels) -> None:
        self._redis = redis
        self._database = database
        self._box = box
        self._channels = channels
        self._sent: defaultdict[UUID, deque[float]] = defaultdict(deque)  # when each target was called last

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver notices until `stop`; those that are being sent then are finished."""
        async with lease.hold(self._redis, LEASE, stop) as fence:
            if fence is None:
                return
            database = await lease.fenced(self._database, LEASE)
            async with asyncio.TaskGroup() as group:
                busy: dict[UUID, asyncio.Task[None]] = {}
                while not stop.is_set():
                    busy = {target: task for target, task in busy.items() if not task.done()}
                    for target, due in (await self._due(database, busy)).items():
                        task = group.create_task(self._serve(database, target, due), name=f"notify {target}")
                        busy[target] = task
                    await sleep(LOOK_SECONDS, stop)

    async def _due(self, database: Database, busy: dict[UUID, asyncio.Task[None]]) -> dict[UUID, list[DueNotice]]:
        free = TARGETS - len(busy)
        by_target: dict[UUID, list[DueNotice]] = {}
        if free > 0:
            async with database.transaction() as tx:
                found = await notices.due(tx, datetime.now(UTC), busy=busy.keys(), targets=free, each=EACH)
            for notice in found:
                by_target.setdefault(notice.target_id, []).append(notice)
        return by_target

    async def _serve(self, database: Database, target: UUID, due: Sequence[DueNotice]) -> None:
        """Send the notices of one target in order; one that fails keeps later ones of its incident waiting."""
        try:
            await self._send_all(database, target, due)
        except Unavailable as exc:  # what was sent and not recorded is sent again, under the same id
            logger.bind(target=str(target), reason=str(exc)).warning("a notice could not be recorded")

    async def _send_all(self, database: Database, target: UUID, due: Sequence[DueNotice]) -> None:
        tenant = due[0].tenant_id
        async with database.transaction() as tx:
            stored = await targets.get(tx, tenant, target)
        spec = stored.open(self._box)
        failed: set[UUID | None] = set()
        for group in self._channels.groups(spec, due):
            if not stored.is_enabled or spec is None:
                reason = "the target is disabled" if spec else "the target was encrypted with another key"
                await self._record(
                    database,
                    group,
                    Attempt(at=datetime.now(UTC), seconds=0, status_code=None, error=reason),
                    None,
                    None,
                )
                continue
            ready = [notice for notice in group if notice.incident_id not in failed]
            if not ready:
                continue
            wait = self._wait(target, spec)
            if wait > 0:
                async with database.transaction() as tx:
                    ids = [notice.notice_id for notice in due]
                    await notices.postpone(tx, tenant, ids, datetime.now(UTC) + timedelta(seconds=wait))
                return
            began, at = time.monotonic(), datetime.now(UTC)
            answer = await self._channels.send(spec, stored.name, ready, at)
            attempt = Attempt(
                at=at,
                seconds=round(time.monotonic() - began, 3),
                status_code=answer.status_code,
                error=answer.error,
            )
            if answer.error is not None:
                failed |= {notice.incident_id for notice in ready}
            await self._record(database, ready, attempt, answer, spec)

    def _wait(self, target: UUID, spec: TargetSpec) -> float:
        """Return how many seconds to wait so that a target is not called too often; 0 counts as a call."""
        sent, now = self._sent[target], time.monotonic()
        while sent and sent[0] <= now - 60:
            sent.popleft()
        if len(sent) >= spec.per_minute:
            return sent[0] + 60 - now
        sent.append(now)
        return 0.0

    async def _record(
        self,
        database: Database,
        sent: Sequence[DueNotice],
        attempt: Attempt,
        answer: Answer | None,
        spec: TargetSpec | None,
    ) -> None:
        """Record an attempt for each of the notices that were sent in it."""
        now = datetime.now(UTC)
        retry_after = _seconds(answer.retry_after, now) if answer else None
        async with database.transaction() as tx:
            for notice in sent:
                status, due_at = "delivered", None
                if attempt.error is not None:
                    due_at = (
                        retries.next_attempt(
                            notice.attempts + 1,
                            now,
                            notice.expires_at,
                            retry_after=retry_after,
                            jitter=random.random(),  # noqa: S311 no secret
                        )
                        if spec is not None and notice.kind != "test"
                        else None
                    )
                    status = "dead" if due_at is None else "pending"
                NOTICES.add(1, {"outcome": "failed" if status == "pending" else status})
                await notices.record(tx, notice.tenant_id, notice.notice_id, attempt, status=status, due_at=due_at)
        if attempt.error is not None:
            logger.bind(target=str(sent[0].target_id), reason=attempt.error[:200]).warning(
                "a notice was not delivered"
            )


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Return the seconds that a receiver asks to wait, which it gives as a number or as a date (RFC 9110)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal() and retry_after.isascii():
        return float(retry_after.strip()[:9])
    from email.utils import parsedate_to_datetime

    try:
        wanted = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return None
    return max((wanted.astimezone(UTC) - now).total_seconds(), 0.0)
