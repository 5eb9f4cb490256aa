"""Lets new rules judge what others have judged already: what is wrong at the moment is told at once."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from iotistica.alerting import series_evaluation
from iotistica.alerting.turns import Turns
from iotistica.alerting.watch import NewRule, Watch
from iotistica.alerting.watched import us
from iotistica.storage.alerts import watched_readings
from iotistica.storage.alerts.watched_readings import SamplesWanted, StoredSamples
from iotistica.storage.postgres import Tx

RULES_PER_READ: Final = 100  # new rules, each of one series, that judge together
READINGS: Final = 1_000_000  # readings that all new rules judge, about
MOST_READINGS: Final = 5000  # readings of a series, the newest
LEAST_READINGS: Final = 20  # the same, however many series there are


async def catch_up(tx: Tx, watch: Watch, turns: Turns, now: datetime, current: datetime) -> None:
    """Let the new rules of a watch judge the newest readings up to where the others are.

    All of it happens before it is recorded that they are not new any more, so it must be bounded.
    """
    new_rules, watch.new_rules = watch.new_rules, []
    limit = min(max(READINGS // max(len(new_rules), 1), LEAST_READINGS), MOST_READINGS)
    for at in range(0, len(new_rules), RULES_PER_READ):
        group = new_rules[at : at + RULES_PER_READ]
        stored = await _read(tx, watch, group, limit)
        for holder, series, rule, _ in group:
            names = (series.metric_name, *rule.others)
            until = max(holder.series[name].newest for name in names)
            others = {
                name: found.up_to(until)
                for name in names
                if (found := stored.get((holder.agent, name))) is not None
            }
            for _, _, turn in series_evaluation.judge(
                *(series, (rule,), others.get(series.metric_name), others),
                now=us(current),
                verdicts=lambda _, samples: [None] * len(samples.times),
            ):
                turns.take(holder, series.metric_name, rule, turn, now, {})
            rule.judged_until = until
            holder.is_dirty = True
        await asyncio.sleep(0)


async def _read(tx: Tx, watch: Watch, group: list[NewRule], limit: int) -> dict[tuple[UUID, str], StoredSamples]:
    """Return the last readings of the series that new rules judge, by agent and name."""
    wanted: dict[tuple[UUID, str], SamplesWanted] = {}
    judged = 0
    for holder, series, rule, after in group:
        for name in (series.metric_name, *rule.others):
            known = wanted.get((holder.agent, name))
            start = min(after, known.after) if known else after
            wanted[holder.agent, name] = SamplesWanted(
                holder.agent, name, start, holder.series[name].needs_qualities
            )
            judged = max(judged, holder.series[name].newest)
    requests = list(wanted.values())
    until = datetime.fromtimestamp(judged / 1e6, UTC)
    return {
        (requests[stored.number].agent, requests[stored.number].metric_name): stored
        for stored in await watched_readings.last_samples(tx, watch.tenants, requests, until=until, limit=limit)
    }
