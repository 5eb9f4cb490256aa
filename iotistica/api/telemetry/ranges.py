"""The time range of a query of readings, limited to what the tenant can see, and the sources that cover it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from litestar.params import QueryParameter

from iotistica.domain import time_ranges
from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.rollup_sources import Source, SourceRange
from iotistica.errors import Invalid, NotFound
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry import coverage
from iotistica.storage.telemetry.coverage import TenantCoverage

Metric = Annotated[str, QueryParameter(min_length=1, max_length=512)]
Names = Annotated[str | None, QueryParameter(max_length=8192, description="comma-separated names")]
Exactly = Annotated[list[str] | None, QueryParameter(name="metric", description="one whole name; can be repeated")]
Time = Annotated[str | None, QueryParameter(max_length=64)]
Width = Annotated[str | None, QueryParameter(max_length=16, description="for example 30s, 5m, 1h, 1d, 1w, 1mo")]
Zone = Annotated[str | None, QueryParameter(max_length=64, description="for example Europe/Zurich; default UTC")]
SourceChoice = Annotated[
    Source | None, QueryParameter(description="use only this source, and finer ones at the ends of the range")
]


class SourcePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the range, and the source that answered it."""

    source: str
    start: datetime
    end: datetime


class QueryRange(NamedTuple):
    """[start, end) as far as the tenant can see it, and how far the stored sources reach."""

    start: datetime
    end: datetime
    coverage: TenantCoverage


async def of_agent(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    start: str | None,
    end: str | None,
    default: timedelta = timedelta(hours=1),
    *,
    zone: ZoneInfo | None = None,
) -> QueryRange:
    """Return the range of a query of one agent's readings.

    Raises `Invalid`, and `NotFound` if the tenant has no such agent.
    """
    now = datetime.now(UTC)
    since, until = time_ranges.parse_range(start, end, now=now, default=default, zone=zone)
    store = await coverage.of_agent(tx, tenant, agent, since, until)
    if store is None:
        raise NotFound
    return QueryRange(max(since, store.shown_since(now)), until, store)


async def of_agents(
    tx: Tx,
    tenant: TenantId,
    agents: Sequence[UUID] | None,
    start: str | None,
    end: str | None,
    *,
    zone: ZoneInfo | None = None,
) -> QueryRange:
    """Return the range of a query of the readings of several agents, or of all (None); raises `Invalid`."""
    now = datetime.now(UTC)
    since, until = time_ranges.parse_range(start, end, now=now, zone=zone)
    store = await coverage.of_agents(tx, tenant, agents, since, until)
    return QueryRange(max(since, store.shown_since(now)), until, store)


def source_parts(segments: list[SourceRange]) -> list[SourcePart]:
    """Return the API representation of segments."""
    return [SourcePart(source=s.source, start=s.start, end=s.end) for s in segments]


def raw_part(requested: QueryRange) -> SourceRange:
    """Return the part of a range for which raw readings are kept; raises `Invalid` if there is none."""
    since = requested.coverage.raw_since
    if requested.end <= since:
        raise Invalid(
            f"must be after {since.isoformat()}: older raw readings are not kept; set `interval` to query rollups",
            "end",
        )
    return SourceRange("raw", max(requested.start, since), requested.end)


def names(text: str | None, exact: Sequence[str] | None = None) -> list[str] | None:
    """Return the comma-separated names of `text` and those of `exact`; None, for all names, if there are none."""
    found = [name.strip() for name in (text or "").split(",") if name.strip()] + list(exact or []) or None
    if found is not None and len(found) > 1000:
        raise Invalid("must be at most 1000 names", "metrics")
    return found
