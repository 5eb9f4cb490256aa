"""Applies the alert rules of all tenants, round by round, while this process holds the lease."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from iotistica.alerting import watch_loading
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.rule_round import RuleRounds
from iotistica.alerting.transitions import Outcome
from iotistica.alerting.watch import Watch
from iotistica.domain.alerts.conditions import PlatformAlarm
from iotistica.instruments import INCIDENTS, RULE_SECONDS, WATCHED
from iotistica.storage import lease
from iotistica.storage.alerts import incidents, rule_states, rules, shared_alarms, watched_series
from iotistica.storage.delivery import ledger, live, stream_stats
from iotistica.storage.delivery.live import LiveUpdate
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

LEASE: Final = "rules"
ROUND_SECONDS: Final = 1.0  # seconds from round to round
LONGEST_ROUND_SECONDS: Final = 2.5  # the same if rounds take long
REST: Final = 50
"""A round begins only after this multiple of what the last one took: fewer and larger ones cost less a reading."""
LOADING_REST: Final = 5
"""Rules are loaded again only after this multiple of what that took, or edits would leave time for nothing else."""
AGENTS_SECONDS: Final = 10.0  # seconds between looks whether agents, their tags or fleets have changed


class RuleRunner:
    """Follows what is stored, and loads again what is watched when rules, tags or fleets change."""

    def __init__(self, redis: Redis, database: Database, announcer: Announcer) -> None:
        self._redis = redis
        self._database = database
        self._announcer = announcer
        self._alarms: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the rules until `stop`."""
        async with lease.hold(self._redis, LEASE, stop) as fence:
            if fence is None:
                return
            database = await lease.fenced(self._database, LEASE)
            watch: Watch | None = None
            while not stop.is_set():
                watch = await self._follow(database, watch, stop)

    async def _follow(self, database: Database, previous: Watch | None, stop: asyncio.Event) -> Watch:
        """Load what is watched, and apply its rules until it must be loaded again; return it."""
        began_loading = time.monotonic()
        async with database.transaction(unbounded=True) as tx:
            revision, xmin = await rules.revision(tx), await ledger.xmin(tx)
            watch = await watch_loading.load(tx, datetime.now(UTC), previous=previous)
            agents = await watched_series.agents_revision(tx, watch.tenants)
            judged_at = await rule_states.last_round(tx)
        WATCHED.set(watch.count_series())
        for tenant, number in watch.left_out.items():
            logger.bind(tenant=tenant, series=number).warning("rules match more series than the tenant can watch")
        rounds = RuleRounds(database, watch, self._announcer, self._alarms, xmin, judged_at=judged_at)
        looked = time.monotonic()
        again_at = looked + max((looked - began_loading) * LOADING_REST, ROUND_SECONDS)
        while not stop.is_set():
            began = time.monotonic()
            lagging = await stream_stats.lagging(self._redis, sorted(watch.tenants)) if watch.judges_silence else ()
            if watch.tenants_with(PlatformAlarm):
                self._alarms.clear()
                self._alarms |= await shared_alarms.raised(self._redis)
            await self._tell(await rounds.run(datetime.now(UTC), lagging))
            took = time.monotonic() - began
            RULE_SECONDS.record(took)
            async with database.transaction() as tx:
                changed = await rules.revision(tx) != revision
                if not changed and began - looked > AGENTS_SECONDS:
                    looked = began
                    changed = await watched_series.agents_revision(tx, watch.tenants) != agents
            if changed and time.monotonic() >= again_at:
                break
            await sleep(max(min(max(ROUND_SECONDS, took * REST), LONGEST_ROUND_SECONDS) - took, 0.05), stop)
        await rounds.save(datetime.now(UTC), is_last=stop.is_set())
        return watch

    async def _tell(self, outcomes: Sequence[Outcome]) -> None:
        """Publish which incidents were opened and resolved."""
        updates: list[LiveUpdate] = []
        for tenant, incident, kind in outcomes:
            INCIDENTS.add(1, {"event": kind, "severity": incident.severity})
            logger.bind(tenant=tenant, incident=incident.incident_id, severity=incident.severity).info(
                f"an incident was {kind}"
            )
            async with self._database.transaction() as tx:
                agents = await incidents.agents_of(tx, tenant, incident.incident_id)
            content = {
                "type": "incident",
                "event": kind,
                "incidentId": incident.incident_id,
                "title": incident.title,
                "severity": incident.severity,
                "status": incident.status,
            }
            updates += [LiveUpdate(tenant, agent, "events", {**content, "agent": agent}) for agent in agents]
        await live.publish(self._redis, updates)
