"""Delivers the notices of the outbox: at least once, in order for each target, and no target delays another."""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from uuid import UUID

from loguru import logger

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.alerts import retries
from iotistica.domain.alerts.targets import TargetSpec
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound, Superseded, Unavailable
from iotistica.instruments import NOTICES
from iotistica.notifications.channels import Channels
from iotistica.storage import lease
from iotistica.storage.alerts import notices, targets
from iotistica.storage.alerts.notices import Attempt, DueNotice
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

LEASE: Final = "notifications"
LOOK_SECONDS: Final = 0.3  # seconds between looks for notices that are due
TARGETS: Final = 200  # targets that are served at a time
TENANT_TARGETS: Final = 50  # of one tenant
EACH: Final = 20  # notices of a target that are taken at a time; e-mails combine so many


class Outbox:
    """Sends the notices of all tenants while this process holds the lease."""

    def __init__(self, redis: Redis, database: Database, box: SecretBox, channels: Channels) -> None:
        self._redis = redis
        self._database = database
        self._box = box
        self._channels = channels
        self._tenants: dict[UUID, TenantId] = {}  # of the targets that were served
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
            at_work = Counter(self._tenants[target] for target in busy)
            full = [tenant for tenant, number in at_work.items() if number >= TENANT_TARGETS]
            async with database.transaction() as tx:
                found = await notices.due(
                    *(tx, datetime.now(UTC)),
                    busy=busy.keys(),
                    full=full,
                    targets=min(free, TENANT_TARGETS),
                    each=EACH,
                )
            for notice in found:
                by_target.setdefault(notice.target_id, []).append(notice)
                self._tenants[notice.target_id] = notice.tenant_id
        return by_target

    async def _serve(self, database: Database, target: UUID, due: Sequence[DueNotice]) -> None:
        """Send the notices of one target in order; whatever goes wrong concerns this target alone."""
        try:
            await self._send_all(database, target, due)
        except NotFound:  # it was deleted meanwhile, with its notices
            return
        except Unavailable as exc:  # what was sent and not recorded is sent again, under the same id
            logger.bind(target=str(target), reason=str(exc)).warning("a notice could not be recorded")
        except Superseded:
            raise
        except Exception as exc:  # noqa: BLE001 one target must not keep others from being told
            logger.bind(target=str(target)).opt(exception=exc).error("a notice could not be sent")
            await self._fail(database, due, f"an error of the platform: {type(exc).__name__}")

    async def _send_all(self, database: Database, target: UUID, due: Sequence[DueNotice]) -> None:
        """Send notices until one fails: a receiver that is not well is not asked again for each of them."""
        tenant = due[0].tenant_id
        async with database.transaction() as tx:
            stored = await targets.get(tx, tenant, target)
        spec = stored.open(self._box)
        if spec is None or not stored.is_enabled:
            reason = "the target is disabled" if spec else "the target cannot be read; write it anew"
            await self._fail(database, due, reason, for_good=True)
            return
        for group in self._channels.groups(spec, due):
            wait = self._wait(target, spec)
            if wait > 0:
                await self._postpone(database, [notice for notice in due if notice.id >= group[0].id], wait)
                return
            began, at = time.monotonic(), datetime.now(UTC)
            answer = await self._channels.send(spec, stored.name, group, at)
            attempt = Attempt(
                at=at,
                seconds=round(time.monotonic() - began, 3),
                status_code=answer.status_code,
                error=answer.error,
            )
            await self._record(database, group, attempt, answer.retry_after)
            if answer.error is not None:
                await self._postpone(
                    database, [notice for notice in due if notice.id > group[-1].id], retries.FIRST
                )
                return

    async def _postpone(self, database: Database, left: Sequence[DueNotice], seconds: float) -> None:
        if left:
            async with database.transaction() as tx:
                ids = [notice.notice_id for notice in left]
                await notices.postpone(tx, left[0].tenant_id, ids, datetime.now(UTC) + timedelta(seconds=seconds))

    async def _fail(
        self, database: Database, due: Sequence[DueNotice], reason: str, *, for_good: bool = False
    ) -> None:
        attempt = Attempt(at=datetime.now(UTC), seconds=0, status_code=None, error=reason)
        await self._record(database, due, attempt, None, for_good=for_good)

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
        retry_after: str | None,
        *,
        for_good: bool = False,
    ) -> None:
        """Record an attempt for each of the notices that were sent in it; `for_good` if none can succeed."""
        now = datetime.now(UTC)
        wanted = _seconds(retry_after, now)
        async with database.transaction() as tx:
            for notice in sent:
                status, due_at = "delivered", None
                if attempt.error is not None:
                    jitter = random.random()  # noqa: S311 no secret
                    if not for_good and notice.kind != "test":
                        due_at = retries.next_attempt(
                            notice.attempts + 1, now, notice.expires_at, retry_after=wanted, jitter=jitter
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
    try:
        return max((parsedate_to_datetime(retry_after).astimezone(UTC) - now).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
