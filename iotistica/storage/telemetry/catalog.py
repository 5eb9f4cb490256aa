"""The catalog: all series of a tenant, with the times of their first and last readings."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.storage.postgres import Page, Tx, fetch_rows

RECENT: Final = timedelta(days=3)  # searched among raw readings; older times come from the daily rollup


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A series; `first_time` and `last_time` are measured times, `first_seen` is a time of the platform's clock."""

    agent_uuid: UUID
    agent_name: str
    metric_name: str
    metric: str
    device_name: str | None
    device_uuid: UUID | None
    endpoint_uuid: UUID | None
    unit: str | None
    protocol: str
    first_seen: datetime
    first_time: datetime | None
    last_time: datetime | None


_OF: Final = "x.agent_uuid = s.agent_uuid AND x.metric_name = s.metric_name"
_RECENT: Final = f"{_OF} AND x.time >= %(recent)s AND x.time < %(now)s"
MATCHING: Final = """
FROM series s JOIN agents a USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND s.tenant_id = %(tenant)s
  AND (%(agent)s::uuid IS NULL OR s.agent_uuid = %(agent)s)
  AND (%(device)s::uuid IS NULL OR s.device_uuid = %(device)s)
  AND (%(protocol)s::text IS NULL OR s.protocol = %(protocol)s)
  AND (%(metrics)s::text[] IS NULL OR s.metric_name = ANY(%(metrics)s::text[])
       OR s.metric = ANY(%(metrics)s::text[]))
  AND (%(parts)s::text[] IS NULL OR lower(s.metric_name || ' ' || a.name) LIKE ALL (%(parts)s))
"""
COUNT: Final = "SELECT count(*)" + MATCHING
PAGE: Final = f"""
SELECT s.*, coalesce(
        (SELECT greatest(coalesce(x.first_time, x.bucket), %(since)s) FROM readings_daily x
         WHERE {_OF} AND x.bucket >= %(day)s AND coalesce(x.last_time, x.bucket) >= %(since)s
         ORDER BY x.bucket LIMIT 1),
        (SELECT x.time FROM readings x WHERE {_RECENT} ORDER BY x.time LIMIT 1)) AS first_time,
    coalesce(
        (SELECT x.time FROM readings x WHERE {_RECENT} ORDER BY x.time DESC LIMIT 1),
        (SELECT coalesce(x.last_time, x.bucket) FROM readings_daily x
         WHERE {_OF} AND x.bucket < %(now)s AND x.bucket >= %(day)s
           AND coalesce(x.last_time, x.bucket) >= %(since)s
         ORDER BY x.bucket DESC LIMIT 1)) AS last_time
FROM (
    SELECT s.agent_uuid, a.name AS agent_name, s.metric_name, s.metric, s.device_name, s.device_uuid,
           s.endpoint_uuid, s.unit, s.protocol, s.first_seen
    {MATCHING}
      AND (%(after_agent)s::uuid IS NULL
           OR (s.agent_uuid, s.metric_name) > (%(after_agent)s, %(after_metric)s::text COLLATE "C"))
    ORDER BY s.agent_uuid, s.metric_name LIMIT %(limit)s
) s ORDER BY s.agent_uuid, s.metric_name
"""


async def page(
    tx: Tx,
    tenant: TenantId,
    filters: Mapping[str, Any],
    *,
    after: tuple[UUID, str] | None,
    now: datetime,
    since: datetime,
    limit: int,
) -> Page[CatalogEntry]:
    """Return up to `limit` series after `after`, ordered by agent and name.

    The keys of `filters` are agent, device, protocol, metrics (names) and text (words, all of which are in the
    name of the series or of its agent). Readings older than `since` are hidden: a
    series without newer readings has no times.
    """
    parameters = dict.fromkeys(("agent", "device", "protocol", "metrics", "parts")) | dict(filters)
    if text := parameters.pop("text", None):
        parameters["parts"] = [f"%{_literal(word)}%" for word in text.lower().split()]
    parameters |= {"tenant": tenant, "now": now, "recent": max(now - RECENT, since), "limit": limit}
    parameters |= {"since": since, "day": floor(since, timedelta(days=1))}
    agent, metric = after or (None, None)
    rows = Page(
        await fetch_rows(
            tx, CatalogEntry, PAGE, parameters | {"after_agent": agent, "after_metric": metric}, prepare=False
        )
    )
    rows.total = len(rows) if after is None and len(rows) < limit else await _count(tx, parameters)
    return rows


def _literal(word: str) -> str:
    """Return a pattern of LIKE that only fits the word itself."""
    return re.sub(r"[\\%_]", r"\\\g<0>", word)


async def _count(tx: Tx, parameters: Mapping[str, Any]) -> int:
    row = await (await tx.execute(COUNT, parameters)).fetchone()
    return int(row[0]) if row else 0
