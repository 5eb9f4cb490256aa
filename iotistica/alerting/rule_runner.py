"""Applies the alert rules of all tenants, round by round, while this process holds the lease."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from iotistica.alerting import watch_loading
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.rule_round import RuleRounds
from iotistica.alerting.transitions import Outcome
from iotistica.instruments import INCIDENTS, RULE_SECONDS, WATCHED
from iotistica.storage import lease
from iotistica.storage.alerts import incidents, rules
from iotistica.storage.delivery import ledger, live, stream_stats
from iotistica.storage.delivery.live import LiveUpdate
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import sleep

LEASE: Final = "rules"
ROUND_SECONDS: Final = 1.0  # seconds from round to round
LONGEST_ROUND_SECONDS: Final = 2.5  # the same if rounds take long
REST: Final = 20
"""A round begins only after this multiple of what the last one took: fewer and larger ones cost less a reading."""
RELOAD_SECONDS: Final = 60.0  # seconds between reloads, which notice changed tags and fleets
NOT_USED: Final = "the rule was disabled or deleted"


class RuleRunner:
    """Follows what is stored, and loads again what is watched when rules, tags or fleets change."""

    def __init__(self, redis: Redis, database: Database, announcer: Announcer, alarms: Mapping[str, str]) -> None:
        """`alarms` are those that are raised now, by name."""
        self._redis = redis
        self._database = database
        self._announcer = announcer
        self._alarms = alarms

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the rules until `stop`."""
        async with lease.hold(self._redis, LEASE, stop) as fence:
            if fence is None:
                return
            database = await lease.fenced(self._database, LEASE)
            while not stop.is_set():
                await self._follow(database, stop)

    async def _follow(self, database: Database, stop: asyncio.Event) -> None:
        """Load what is watched, and apply its rules until it must be loaded again."""
        now, outcomes = datetime.now(UTC), list[Outcome]()
        async with database.transaction(unbounded=True) as tx:
            revision, xmin = await rules.revision(tx), await ledger.xmin(tx)
            watch = await watch_loading.load(tx, now)
            for tenant, cause in await incidents.without_rule(tx):
                ended = await incidents.end_cause(tx, tenant, cause, now, reason=NOT_USED)
                outcomes += [Outcome(tenant, incident, "resolved") for incident in ended]
        await self._tell(outcomes)
        WATCHED.set(watch.count_series())
        for tenant, number in watch.left_out.items():
            logger.bind(tenant=tenant, series=number).warning("rules match more series than the tenant can watch")
        rounds = RuleRounds(database, watch, self._announcer, self._alarms, xmin)
        loaded = time.monotonic()
        while not stop.is_set():
            began = time.monotonic()
            lagging = await stream_stats.lagging(self._redis, sorted(watch.tenants)) if watch.judges_silence else ()
            await self._tell(await rounds.run(datetime.now(UTC), lagging))
            RULE_SECONDS.record(time.monotonic() - began)
            async with database.transaction() as tx:
                changed = await rules.revision(tx) != revision
            if changed or (watch.rules and began - loaded > RELOAD_SECONDS):
                break
            took = time.monotonic() - began
            await sleep(max(min(max(ROUND_SECONDS, took * REST), LONGEST_ROUND_SECONDS) - took, 0.05), stop)
        await rounds.save(datetime.now(UTC))

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
