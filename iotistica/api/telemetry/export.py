"""Readings of an agent as a file: streamed, in order of time, in memory a slice at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from litestar import Router, get
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry import export_formats
from iotistica.api.telemetry.export_formats import MEDIA, Format, Writer
from iotistica.api.telemetry.ranges import Exactly, Names, Time, names, of_agent, single
from iotistica.domain.time_ranges import parse_time
from iotistica.errors import Invalid, TooSlow
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import csv_export
from iotistica.storage.telemetry.csv_export import ExportQuery, SliceTooLargeError

SMALL: Final = 1 << 20  # bytes of a slice below which the next is longer
MOST: Final = 8 << 20  # bytes of a slice, some 60,000 rows
FIRST: Final = timedelta(hours=1)
LONGEST: Final = timedelta(days=366)
SHORTEST: Final = timedelta(microseconds=1)
NAMES: Final = 200  # series of one microsecond at a time; each has some kB at most
PIECE: Final = 1 << 18  # bytes


@get("/{agent:uuid}/export", opt={"permission": "readings.read"})
async def export(
    request: ApiRequest,
    database: DatabaseDep,
    agent: FromPath[UUID],
    start: Time = None,
    end: Time = None,
    metrics: Names = None,
    exactly: Exactly = None,
    format_: Annotated[Format, QueryParameter(name="format")] = "csv",
    after: Annotated[
        str | None,
        QueryParameter(max_length=600, description="`time,metric_name` of the last row that arrived: go on there"),
    ] = None,
) -> Stream:
    """Every reading of [start, end) as it is stored, by time and name; of the last day unless asked.

    An answer that breaks off is not complete; `after` goes on where it broke, and needs no `start`.
    """
    tenant, writer, last = tenant_of(request), export_formats.writer(format_), _last(after, datetime.now(UTC))
    begin = start or (last[0].isoformat() if last else None)
    async with database.transaction(tenant) as tx:
        asked = await of_agent(tx, tenant, agent, begin, end, timedelta(days=1))
    extract = ExportQuery(tenant, agent, names(metrics, exactly), last)
    whole = single(asked)
    since = max(whole.start, last[0]) if last else whole.start
    sent = _sent(database, writer, extract, since, asked.end)
    first = await anext(sent)  # while it can still be answered otherwise
    return Stream(
        _pieces(first, sent),
        media_type=MEDIA[format_],
        headers={
            "Content-Disposition": f'attachment; filename="{agent}.{format_}"',
            "Iotistica-Start": since.isoformat(),
            "Iotistica-End": asked.end.isoformat(),
        },
    )


def _last(after: str | None, now: datetime) -> tuple[datetime, str] | None:
    if not after:
        return None
    time, comma, name = after.partition(",")
    if not comma or not name:
        raise Invalid("give the time and the metric_name of the last row, with a comma between", "after")
    return parse_time(time, now=now, default=now, path="after"), name


async def _sent(
    database: Database, writer: Writer, extract: ExportQuery, start: datetime, end: datetime
) -> AsyncGenerator[bytes]:
    async for rows in slices(database, extract, start, end):
        if part := await asyncio.to_thread(writer.add, rows):
            yield part
    yield await asyncio.to_thread(writer.end)


async def _pieces(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The same in pieces, each of which even a slow reader takes within the time that the server allows it."""
    for at in range(0, len(first), PIECE):
        yield first[at : at + PIECE]
    async with aclosing(rest):
        async for part in rest:
            for at in range(0, len(part), PIECE):
                yield part[at : at + PIECE]


async def slices(database: Database, extract: ExportQuery, start: datetime, end: datetime) -> AsyncIterator[bytes]:
    """Rows of [start, end), each slice read in a transaction of its own: who reads slowly holds nothing of ours."""
    width = FIRST
    while start < end:
        until = min(start + width, end)
        try:
            async with database.transaction(extract.tenant) as tx:
                rows = await csv_export.read_slice(tx, extract, start, until, most=MOST)
        except (SliceTooLargeError, TooSlow):
            if width > SHORTEST:
                width = max(width / 4, SHORTEST)
                continue
            async for rows in _instant(database, extract, start, until):
                yield rows
            start = until
            continue
        if rows:
            yield rows
        start = until
        width = min(width * 2, LONGEST) if len(rows) < SMALL else width


async def _instant(
    database: Database, extract: ExportQuery, start: datetime, end: datetime
) -> AsyncIterator[bytes]:
    """Rows of one microsecond that are too many for a slice, by name."""
    async with database.transaction(extract.tenant) as tx:
        found = await csv_export.series_names(tx, extract, start, end)
    at, size = 0, NAMES
    while at < len(found):
        some = extract._replace(metrics=found[at : at + size])
        try:
            async with database.transaction(extract.tenant) as tx:
                rows = await csv_export.read_slice(tx, some, start, end, most=MOST)
        except SliceTooLargeError:
            size //= 2  # one alone is never too much
            continue
        if rows:
            yield rows
        at += size


router = Router("/readings", route_handlers=[export], tags=["readings"])
