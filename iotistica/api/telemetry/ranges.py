"""The range and the store of a query of readings, as far as its tenant is shown them."""

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
Names = Annotated[str | None, QueryParameter(max_length=8192, description="names by commas")]
Exactly = Annotated[list[str] | None, QueryParameter(name="metric", description="a whole name, as often as needed")]
Time = Annotated[str | None, QueryParameter(max_length=64)]
Width = Annotated[str | None, QueryParameter(max_length=16, description="such as 30s, 5m, 1h, 1d, 1w, 1mo")]
Zone = Annotated[str | None, QueryParameter(max_length=64, description="such as Europe/Zurich; UTC unless given")]
SourceChoice = Annotated[
    Source | None, QueryParameter(description="ask this source alone, or finer ones at its ends")
]


class SourcePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the range, and the source that answered for it."""

    source: str
    start: datetime
    end: datetime


class QueryRange(NamedTuple):
    """[start, end) as far as it is shown, and where it lies."""

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
    """The range of a query of one agent's readings; raises `Invalid`, and `NotFound` for a foreign agent."""
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
    """The range of a query of several agents' readings, or of all; raises `Invalid`."""
    now = datetime.now(UTC)
    since, until = time_ranges.parse_range(start, end, now=now, zone=zone)
    store = await coverage.of_agents(tx, tenant, agents, since, until)
    return QueryRange(max(since, store.shown_since(now)), until, store)


def source_parts(segments: list[SourceRange]) -> list[SourcePart]:
    """The segments as an answer shows them."""
    return [SourcePart(source=s.source, start=s.start, end=s.end) for s in segments]


def single(asked: QueryRange) -> SourceRange:
    """The part of a range of which there are single readings; raises `Invalid` if there is none."""
    since = asked.coverage.raw_since
    if asked.end <= since:
        raise Invalid(f"single readings are kept since {since.isoformat()}: give an interval", "end")
    return SourceRange("raw", max(asked.start, since), asked.end)


def names(text: str | None, exact: Sequence[str] | None = None) -> list[str] | None:
    """Names by commas, and those given one by one; None where all are meant."""
    found = [name.strip() for name in (text or "").split(",") if name.strip()] + list(exact or []) or None
    if found is not None and len(found) > 1000:
        raise Invalid("at most 1000 names", "metrics")
    return found
