"""Finds the series that a name in a request means, and tells the nearest names of one that no series has."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.names import clean_name
from iotistica.domain.telemetry.similar_names import nearest
from iotistica.errors import Invalid
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry import series_names
from iotistica.storage.telemetry.series_names import NamedSeries

R = TypeVar("R")

SERIES: Final = 10_000  # of an agent that one request can name
SHOWN: Final = 10  # names in an error
SUGGESTED: Final = 5  # unknown names of a request that get suggestions


class UnknownName(msgspec.Struct, frozen=True, kw_only=True):
    """A name that no series has, and the nearest names of series."""

    metric: str
    nearest: list[str]


class MissingNames(NamedTuple):
    """Names that no series has, and the names of series that they are compared with."""

    names: list[str]
    known: list[NamedSeries]


def spellings(name: str) -> list[str]:
    """Return a name as it is written and as it is stored (in Unicode's composed form)."""
    return list(dict.fromkeys((name, clean_name(name))))


async def one(tx: Tx, tenant: TenantId, agent: UUID, name: str) -> str:
    """Return the whole name of the series that is meant: this name, or the only series with this metric.

    Raises `Invalid`: with the nearest names if there is none, with all if several devices have the metric. For an
    agent without any series the name is returned as it is.
    """
    found = await series_names.matching(tx, tenant, agent, spellings(name), limit=SHOWN + 1)
    whole = [series.metric_name for series in found if series.metric_name in spellings(name)]
    if whole:
        return whole[0]
    if len(found) > 1:
        names = ", ".join(series.metric_name for series in found[:SHOWN])
        raise Invalid(f"is measured by several devices: name one of the series {names}", "metric")
    if found:
        return found[0].metric_name
    known = await series_names.known(tx, tenant, [agent])
    if not known:
        return name
    raise unknown_series((await suggest(MissingNames([name], known)))[0], "metric")


async def read_named(
    tx: Tx,
    tenant: TenantId,
    agent: UUID,
    name: str,
    read: Callable[[str], Awaitable[R]],
    has_rows: Callable[[R], object] = bool,
) -> tuple[str, R]:
    """Read the series that a name means; return its whole name and what was read. Raises as `one` does.

    The name is taken as a whole one first, so that a query by whole names costs no further statement.
    """
    found = await read(name)
    if not has_rows(found) and (whole := await one(tx, tenant, agent, name)) != name:
        return whole, await read(whole)
    return name, found


async def named(
    tx: Tx, tenant: TenantId, agent: UUID, names: Sequence[str] | None
) -> tuple[list[str] | None, MissingNames]:
    """Return the whole names of all series with these names or metrics, and the names that no series has.

    None means all series.
    """
    if names is None:
        return None, MissingNames([], [])
    written = {name: spellings(name) for name in names}
    asked = [spelling for each in written.values() for spelling in each]
    found = await series_names.matching(tx, tenant, agent, asked, limit=SERIES)
    having = {series.metric_name for series in found} | {series.metric for series in found}
    missing = [name for name, forms in written.items() if not having.intersection(forms)]
    # A name that is whole means that series alone, even if it is also the metric of a device.
    whole = {series.metric_name for series in found if series.metric_name in asked}
    meant = [series.metric_name for series in found if series.metric_name in whole or series.metric not in whole]
    return meant, MissingNames(missing, await series_names.known(tx, tenant, [agent]) if missing else [])


async def suggest(missing: MissingNames) -> list[UnknownName]:
    """Return the missing names, the first `SUGGESTED` with the nearest known ones. Call it after the transaction.

    It takes up to a second for each name, in a thread.
    """
    pairs = [(series.metric_name, series.metric) for series in missing.known]
    return [
        UnknownName(
            metric=name, nearest=await asyncio.to_thread(nearest, name, pairs) if number < SUGGESTED else []
        )
        for number, name in enumerate(missing.names)
    ]


def unknown_series(missing: UnknownName, path: str) -> Invalid:
    """Return the error for a name that no series has; `path` is the field of the request."""
    hint = f"the nearest to {missing.metric!r} are {', '.join(missing.nearest)}" if missing.nearest else ""
    return Invalid(f"must be a series of the agent, as in GET /metrics/catalog{'; ' if hint else ''}{hint}", path)
