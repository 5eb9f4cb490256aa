"""Reads what was stored of watched series, and writes the scores of unusual readings."""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain.alerts.rule_states import Samples
from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx

READINGS_LIMIT: Final = 5000  # readings of a series that one statement returns; the rest follow in the next round
STATEMENT_LIMIT: Final = 500_000  # the same for all its series, about


class SamplesWanted(NamedTuple):
    """A series, and the time after which its readings are wanted, in us."""

    agent: UUID
    metric_name: str
    after: int
    with_qualities: bool


# One text for each column instead of arrays: the driver takes a tenth of a second for 10,000 members of an array.
_WANTED: Final = """(
    SELECT agent_uuid, metric_name, timestamptz 'epoch' + after * interval '1 microsecond' AS after, is_full, number
    FROM unnest(string_to_array(%(agents)s, ',')::uuid[], string_to_array(%(names)s, E'\\x1f'),
                string_to_array(%(after)s, ',')::bigint[], string_to_array(%(full)s, ',')::bool[])
         WITH ORDINALITY AS w (agent_uuid, metric_name, after, is_full, number)) w
JOIN agents a ON a.agent_uuid = w.agent_uuid AND a.tenant_id = ANY(%(tenants)s)"""


def _parameters(tenants: Collection[TenantId], wanted: Sequence[SamplesWanted], until: datetime) -> dict[str, Any]:
    return {
        "tenants": list(tenants),
        "agents": ",".join([str(row.agent) for row in wanted]),
        "names": "\x1f".join(
            [row.metric_name.replace("\x1f", "") for row in wanted]
        ),  # no series has it in its name
        "after": ",".join([str(row.after) for row in wanted]),
        "full": ",".join(["t" if row.with_qualities else "f" for row in wanted]),
        "oldest": datetime.fromtimestamp(min(row.after for row in wanted) / 1e6, UTC),
        "until": until,
    }


class StoredSamples(NamedTuple):
    """Readings of a series: all times, and times and values of those that can be believed, ascending, in us."""

    number: int
    """The position of the series in the request."""
    newest: int
    times: list[int]
    values: list[float]
    sent_times: list[int] | None
    """The times of all readings, only for series whose qualities are requested."""
    qualities: list[str] | None
    is_cut: bool
    """Whether as many were found as were wanted at most."""

    def up_to(self, time: int) -> "StoredSamples":
        """Return the readings up to a time, in us; the others wait."""
        if time >= self.newest:
            return self
        usable, sent = bisect_right(self.times, time), bisect_right(self.sent_times or (), time)
        return self._replace(
            newest=time,
            is_cut=True,
            times=self.times[:usable],
            values=self.values[:usable],
            sent_times=self.sent_times and self.sent_times[:sent],
            qualities=self.qualities and self.qualities[:sent],
        )


# Constants for the oldest and the newest time of all series exclude partitions when the statement is planned. The
# inner query sorts, along the key, so that the aggregates need not.
SAMPLES: Final = (
    """
SELECT w.number - 1, r.*
FROM """
    + _WANTED
    + """
CROSS JOIN LATERAL (
    SELECT max(us) AS newest,
           coalesce(array_agg(us) FILTER (WHERE usable), '{}') AS times,
           coalesce(array_agg(value) FILTER (WHERE usable), '{}') AS values,
           array_agg(us) FILTER (WHERE w.is_full) AS sent_times,
           array_agg(quality) FILTER (WHERE w.is_full) AS qualities,
           count(*) >= %(limit)s AS is_cut
    FROM (
        SELECT (date_part('epoch', time) * 1000000)::bigint AS us, value, quality,
               value IS NOT NULL AND quality IN ('good', 'uncertain') AS usable
        FROM readings r
        WHERE r.agent_uuid = w.agent_uuid AND r.metric_name = w.metric_name AND r.time > w.after
          AND r.time > %(oldest)s AND r.time <= %(until)s
        ORDER BY r.time LIMIT %(limit)s
    ) rows
) r WHERE r.newest IS NOT NULL
"""
)
LAST_SAMPLES: Final = SAMPLES.replace("ORDER BY r.time LIMIT", "ORDER BY r.time DESC LIMIT")


async def samples(
    tx: Tx, tenants: Collection[TenantId], wanted: Sequence[SamplesWanted], *, until: datetime
) -> list[StoredSamples]:
    """Return what was measured of each series after a time and up to `until`; silent series are left out."""
    if not wanted:
        return []
    cursor = tx.cursor(binary=True)
    limit = min(READINGS_LIMIT, max(STATEMENT_LIMIT // len(wanted), 1))
    await cursor.execute(SAMPLES, _parameters(tenants, wanted, until) | {"limit": limit}, prepare=False)
    return [StoredSamples(*row) for row in await cursor.fetchall()]


async def last_samples(
    tx: Tx, tenants: Collection[TenantId], wanted: Sequence[SamplesWanted], *, until: datetime, limit: int
) -> list[StoredSamples]:
    """Return the last `limit` readings of each series after a time and up to `until`, ascending."""
    if not wanted:
        return []
    cursor = tx.cursor(binary=True)
    await cursor.execute(LAST_SAMPLES, _parameters(tenants, wanted, until) | {"limit": limit}, prepare=False)
    return [
        StoredSamples(
            *(number, newest, times[::-1], values[::-1]),
            sent_times=sent_times and sent_times[::-1],
            qualities=qualities and qualities[::-1],
            is_cut=is_cut,
        )
        for number, newest, times, values, sent_times, qualities, is_cut in await cursor.fetchall()
    ]


VALUES_BEFORE: Final = """
SELECT (date_part('epoch', r.time) * 1000)::bigint, r.value
FROM agents a JOIN readings r USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND r.agent_uuid = %(agent)s AND r.metric_name = %(name)s
  AND r.time > %(start)s AND r.time <= %(end)s
ORDER BY r.time DESC LIMIT %(limit)s
"""


async def values_before(
    tx: Tx, tenant: TenantId, agent: UUID, metric_name: str, end: datetime, *, limit: int
) -> list[tuple[int, float | None]]:
    """Return the last readings of a series up to a time and within a day: times in ms and values, ascending."""
    parameters = {"tenant": tenant, "agent": agent, "name": metric_name, "end": end, "limit": limit}
    parameters["start"] = end - timedelta(days=1)
    cursor = await tx.execute(VALUES_BEFORE, parameters, prepare=False)
    return [(ms, value) for ms, value in reversed(await cursor.fetchall())]


class Extremes(NamedTuple):
    """How far a series has come, and the least and the greatest value that can be believed; None without any."""

    number: int
    """The position of the series in the request."""
    newest: int
    low: float | None
    high: float | None


EXTREMES: Final = (
    """
SELECT w.number - 1, (date_part('epoch', r.newest) * 1000000)::bigint, r.low, r.high
FROM """
    + _WANTED
    + """
CROSS JOIN LATERAL (
    SELECT max(r.time) AS newest, min(r.value) FILTER (WHERE quality IN ('good', 'uncertain')) AS low,
           max(r.value) FILTER (WHERE quality IN ('good', 'uncertain')) AS high
    FROM readings r
    WHERE r.agent_uuid = w.agent_uuid AND r.metric_name = w.metric_name AND r.time > w.after
      AND r.time > %(oldest)s AND r.time <= %(until)s
) r WHERE r.newest IS NOT NULL
"""
)


async def extremes(
    tx: Tx, tenants: Collection[TenantId], wanted: Sequence[SamplesWanted], *, until: datetime
) -> list[Extremes]:
    """Return the extremes of what was measured of each series after a time and up to `until`.

    That costs a third of reading the values, and is all that a bound which nothing comes near asks for.
    """
    if not wanted:
        return []
    cursor = tx.cursor(binary=True)
    await cursor.execute(EXTREMES, _parameters(tenants, wanted, until), prepare=False)
    return [Extremes(*row) for row in await cursor.fetchall()]


HISTORY: Final = """
SELECT coalesce(array_agg(us ORDER BY us), '{}'), coalesce(array_agg(value ORDER BY us), '{}') FROM (
    SELECT (date_part('epoch', r.time) * 1000000)::bigint AS us, r.value
    FROM agents a JOIN readings r USING (agent_uuid)
    WHERE a.tenant_id = %(tenant)s AND r.agent_uuid = %(agent)s AND r.metric_name = %(name)s
      AND r.time > %(after)s AND r.time <= %(until)s AND r.value IS NOT NULL AND r.quality IN ('good', 'uncertain')
    ORDER BY r.time DESC LIMIT %(limit)s) rows
"""


async def history(
    tx: Tx, tenant: TenantId, agent: UUID, metric_name: str, *, after: datetime, until: datetime, limit: int
) -> Samples:
    """Return the newest readings of a series in a range that can be believed, at most `limit`, ascending."""
    parameters = {"tenant": tenant, "agent": agent, "name": metric_name, "after": after, "until": until}
    cursor = tx.cursor(binary=True)
    await cursor.execute(HISTORY, parameters | {"limit": limit}, prepare=False)
    times, values = await cursor.fetchone() or ([], [])
    return Samples(times, values)


SET_SCORE: Final = """
UPDATE readings r SET anomaly_score = %(score)s, anomaly_threshold = %(threshold)s FROM agents a
WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND r.agent_uuid = a.agent_uuid
  AND r.metric_name = %(name)s AND r.time = %(time)s AND r.anomaly_score IS NULL
"""


async def set_score(
    tx: Tx, tenant: TenantId, agent: UUID, metric_name: str, time: datetime, *, score: float, threshold: float
) -> None:
    """Write the score of a reading, and from which score a rule fires; one that the agent sent stays."""
    parameters = {"tenant": tenant, "agent": agent, "name": metric_name, "time": time}
    await tx.execute(SET_SCORE, parameters | {"score": score, "threshold": threshold}, prepare=False)


NEWEST: Final = """
SELECT w.number - 1, (date_part('epoch', max(r.time) FILTER (WHERE r.time <= %(until)s)) * 1000000)::bigint,
       (date_part('epoch', max(r.time)) * 1000000)::bigint
FROM unnest(%(agents)s::uuid[], %(names)s::text[]) WITH ORDINALITY AS w (agent_uuid, metric_name, number)
JOIN agents a ON a.agent_uuid = w.agent_uuid AND a.tenant_id = ANY(%(tenants)s)
CROSS JOIN LATERAL (
    (SELECT time FROM readings WHERE agent_uuid = w.agent_uuid AND metric_name = w.metric_name
        AND time > %(since)s AND time <= %(until)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time FROM readings WHERE agent_uuid = w.agent_uuid AND metric_name = w.metric_name
        AND time > %(until)s ORDER BY time DESC LIMIT 1)
) r GROUP BY w.number
"""


class NewestTimes(NamedTuple):
    """The times of the newest reading of a series, in us: of those whose time has come, and of all."""

    past: int | None
    any: int


async def newest(
    tx: Tx, tenants: Collection[TenantId], wanted: Sequence[tuple[UUID, str]], *, since: datetime, until: datetime
) -> dict[tuple[UUID, str], NewestTimes]:
    """Return the newest times of each series after `since`; `until` is now. Series without any are left out."""
    parameters: dict[str, Any] = {"agents": [agent for agent, _ in wanted], "names": [name for _, name in wanted]}
    parameters["tenants"] = list(tenants)
    cursor = await tx.execute(NEWEST, parameters | {"since": since, "until": until}, prepare=False)
    return {wanted[number]: NewestTimes(past, any_) for number, past, any_ in await cursor.fetchall()}
