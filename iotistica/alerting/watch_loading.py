"""Loads what the enabled rules watch, with what they remember of it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from iotistica.alerting.watch import Watch
from iotistica.alerting.watched import Holder, WatchedSeries
from iotistica.domain.ids import TenantId
from iotistica.storage.access import quotas
from iotistica.storage.alerts import rule_states, rules, watched_readings, watched_series
from iotistica.storage.alerts.rule_states import Subject
from iotistica.storage.alerts.watched_series import SERIES_PER_READ, WatchedAgent
from iotistica.storage.postgres import Tx

SEEN_WITHIN: Final = timedelta(days=7)
"""A series that has been silent for longer when it begins to be watched is not absent: it is gone."""


async def load(tx: Tx, now: datetime, *, previous: Watch | None = None, only: TenantId | None = None) -> Watch:
    """Return the enabled rules of all tenants, or of only one, with the agents and series that they watch.

    What is known of series that were watched by `previous` is taken over; all that it remembers must be saved.
    """
    watch = Watch((rule for rule in await rules.enabled(tx) if only in (None, rule.tenant_id)), previous)
    if not watch.rules:
        return watch
    watch.limits = await quotas.alert_series(tx, watch.tenants)
    saved = await rule_states.load(tx, [Subject(tenant, None) for tenant in watch.tenants])
    for tenant in watch.tenants:
        watch.add_platform(tenant, saved.get(Subject(tenant, None), {}))
    await add_agents(tx, watch, await watched_series.agents(tx, watch.tenants, None))
    async for rows in watched_series.series(tx, watch.tenants):
        await find_newest(tx, watch, watch.add_series(rows, now), now)
        await asyncio.sleep(0)  # many rules with wildcards can take a while
    for holder in (*watch.agents.values(), *watch.platform.values()):
        holder.is_dirty |= holder.remembers_more
    return watch


async def add_agents(tx: Tx, watch: Watch, agents: Sequence[WatchedAgent]) -> None:
    """Add agents with what was stored of them."""
    saved = await rule_states.load(tx, [Subject(agent.tenant_id, agent.agent_uuid) for agent in agents])
    for agent in agents:
        watch.add_agent(agent, saved.get(Subject(agent.tenant_id, agent.agent_uuid), {}))


async def find_newest(tx: Tx, watch: Watch, added: Sequence[tuple[Holder, WatchedSeries]], now: datetime) -> None:
    """Find out when each of these series was last measured, and which have readings whose time has not come."""
    for at in range(0, len(added), SERIES_PER_READ):
        group = [(holder, series) for holder, series in added[at : at + SERIES_PER_READ] if not series.is_known]
        wanted = [(holder.agent, series.metric_name) for holder, series in group]
        since = now - max(SEEN_WITHIN, watch.longest_absence * 2)
        found = await watched_readings.newest(tx, watch.tenants, wanted, since=since, until=now)
        for key, (holder, series) in zip(wanted, group, strict=True):
            times = found.get(key)
            if times is not None and times.any > (times.past or 0):
                watch.expect(holder, times.any)
            if times is not None and times.past is not None:
                series.heard = max(series.heard, times.past)
