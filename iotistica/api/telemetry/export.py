"""The route that exports an agent's readings as a file, streamed by time with one slice in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from urllib.parse import quote
from uuid import UUID

from litestar import Router, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from iotistica.api.http.dependencies import ApiRequest, DatabaseDep
from iotistica.api.http.guard import tenant_of
from iotistica.api.telemetry import export_formats
from iotistica.api.telemetry.export_formats import MEDIA, Format, Safe, Writer
from iotistica.api.telemetry.ranges import Exactly, Names, Time, names, of_agent, raw_part
from iotistica.api.telemetry.series_names import named, suggest, unknown_series
from iotistica.domain.time_ranges import parse_time
from iotistica.errors import Invalid, TooSlow
from iotistica.storage.postgres import Database
from iotistica.storage.telemetry import csv_export
from iotistica.storage.telemetry.csv_export import ExportQuery, SliceTooLargeError

SMALL: Final = 1 << 20  # bytes of a slice below which the next slice covers a longer time
MOST: Final = 8 << 20  # bytes of a slice, about 60,000 rows
FIRST: Final = timedelta(hours=1)
LONGEST: Final = timedelta(days=366)
SHORTEST: Final = timedelta(microseconds=1)
TOLD: Final = 10  # unknown names in a header, which proxies limit
NAMES: Final = 200  # series read at once if one microsecond is too large; each has a few kB at most
PIECE: Final = 1 << 18  # bytes sent at a time


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
    safe: FromQuery[Safe | None] = None,
    after: Annotated[
        str | None,
        QueryParameter(
            max_length=600, description="`time,metric_name` of the last row received; continue after it"
        ),
    ] = None,
) -> Stream:
    """Export every reading of an agent in [start, end) as it is stored, ordered by time and name.

    The default range is the last day. If the connection breaks, the file is incomplete: continue it with `after`,
    which does not need `start`. With `safe=spreadsheet`, no text of a CSV file is a formula.
    """
    tenant, writer, last = tenant_of(request), export_formats.writer(format_, safe), _last(after, datetime.now(UTC))
    begin = start or (last[0].isoformat() if last else None)
    async with database.transaction(tenant) as tx:
        query_range = await of_agent(tx, tenant, agent, begin, end, timedelta(days=1))
        only, missing = await named(tx, tenant, agent, names(metrics, exactly))
    unknown = missing.names
    if unknown and not only:
        raise unknown_series((await suggest(missing._replace(names=unknown[:1])))[0], "metrics")
    extract = ExportQuery(tenant, agent, only, last)
    raw_range = raw_part(query_range)
    since = max(raw_range.start, last[0]) if last else raw_range.start
    sent = _sent(database, writer, extract, since, query_range.end)
    first = await anext(sent)  # before the headers are sent: a failure is still answered as an error
    return Stream(
        _pieces(first, sent),
        media_type=MEDIA[format_],
        headers={
            "Content-Disposition": f'attachment; filename="{agent}.{format_}"',
            "Iotistica-Start": since.isoformat(),
            "Iotistica-End": query_range.end.isoformat(),
            **({"Iotistica-Unknown": ",".join(quote(name) for name in unknown[:TOLD])} if unknown else {}),
        },
    )


def _last(after: str | None, now: datetime) -> tuple[datetime, str] | None:
    if not after:
        return None
    time, comma, name = after.partition(",")
    if not comma or not name:
        raise Invalid("must be the time and the metric_name of the last row, separated by a comma", "after")
    return parse_time(time, now=now, default=now, path="after"), name


async def _sent(
    database: Database, writer: Writer, extract: ExportQuery, start: datetime, end: datetime
) -> AsyncGenerator[bytes]:
    async for rows in slices(database, extract, start, end):
        if part := await asyncio.to_thread(writer.add, rows):
            yield part
    yield await asyncio.to_thread(writer.end)


async def _pieces(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data in pieces that even a slow reader accepts within the server's time limit."""
    for at in range(0, len(first), PIECE):
        yield first[at : at + PIECE]
    async with aclosing(rest):
        async for part in rest:
            for at in range(0, len(part), PIECE):
                yield part[at : at + PIECE]


async def slices(database: Database, extract: ExportQuery, start: datetime, end: datetime) -> AsyncIterator[bytes]:
    """Yield the rows of [start, end). Each slice has its own transaction, so a slow reader keeps none open."""
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
    """Yield the rows of one microsecond that are too many for a slice, some series at a time, ordered by name."""
    async with database.transaction(extract.tenant) as tx:
        series = await csv_export.series_names(tx, extract, start, end)
    at, size = 0, NAMES
    while at < len(series):
        part = extract._replace(metrics=series[at : at + size])
        try:
            async with database.transaction(extract.tenant) as tx:
                rows = await csv_export.read_slice(tx, part, start, end, most=MOST)
        except SliceTooLargeError:
            size //= 2  # a single series always fits
            continue
        if rows:
            yield rows
        at += size


router = Router("/readings", route_handlers=[export], tags=["readings"])
