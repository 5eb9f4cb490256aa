"""Caches the stored series in this process, so that only new or changed series are written to the database."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.instruments import SERIES
from iotistica.storage.access import quotas
from iotistica.storage.postgres import Tx
from iotistica.storage.telemetry import series as table
from iotistica.storage.telemetry.series import Series

NO_QUOTAS: Final[Mapping[TenantId, int]] = MappingProxyType({})
SERIES_LIMIT: Final = 500_000  # cached series; above that, the agents that reported least recently are dropped


class SeriesFacts(NamedTuple):
    unit: str | None
    protocol: str
    device_uuid: str | None


Learned = dict[UUID, dict[str, SeriesFacts]]
SeriesKey = tuple[UUID, str]
"""Agent and metric name."""


class SeriesCache:
    """The facts of each known series; filled only from committed transactions."""

    def __init__(self, *, corrects: bool = True) -> None:
        """`corrects`: whether the unit and protocol of these readings replace those stored for a series."""
        self._corrects = corrects
        # By agent, the one that reported least recently first. Uses are marked by agent, not by series, and in an
        # OrderedDict rather than an LRUCache, because about 100,000 series are looked up per second.
        self._known: OrderedDict[UUID, dict[str, SeriesFacts]] = OrderedDict()
        self._size = 0  # series of all agents

    async def write_new(
        self,
        tx: Tx,
        rows: Mapping[UUID, Collection[Reading]],
        tenants: Mapping[UUID, TenantId],
        most: Mapping[TenantId, int] = NO_QUOTAS,
    ) -> tuple[Learned, set[SeriesKey]]:
        """Write the new and changed series of these readings; pass the result to `remember` after the commit.

        Also returns the series that were refused because their tenant has reached its quota in `most`.
        """
        unknown = self._unknown(rows)
        if not unknown:
            return {}, set()
        keys = [(agent, name) for agent, readings in unknown.items() for name in readings]
        stored = {(s.agent_uuid, s.metric_name): s for s in await table.get(tx, keys)}
        learned: Learned = {}
        new, changed, conflicts = [], [], 0
        for agent, readings in unknown.items():
            for name, reading in readings.items():
                known = stored.get((agent, name))
                device = reading.device_uuid
                if known is None:
                    new.append(_series(agent, tenants[agent], reading))
                else:
                    if (known.unit, known.protocol) != (reading.unit, reading.protocol):
                        changed.append(_series(agent, tenants[agent], reading))
                    owner = str(known.device_uuid) if known.device_uuid else None
                    conflicts += device is not None and owner is not None and device != owner
                learned.setdefault(agent, {})[name] = SeriesFacts(reading.unit, reading.protocol, device)
        new, refused = await _within_quotas(tx, new, most)
        for agent, name in refused:
            del learned[agent][name]
        if new:
            await table.add(tx, new)
        if changed and self._corrects:
            SERIES.add(await table.update(tx, changed), {"outcome": "changed"})
        if conflicts:
            SERIES.add(conflicts, {"outcome": "device_conflict"})
            logger.bind(series=conflicts).warning("another device reports under the name of an existing series")
        return learned, refused

    def remember(self, learned: Learned) -> None:
        """Cache series facts whose transaction was committed."""
        while self._size > SERIES_LIMIT:
            _, dropped = self._known.popitem(last=False)
            self._size -= len(dropped)
        for agent, facts in learned.items():
            known = self._known.setdefault(agent, {})
            self._size -= len(known)
            known.update(facts)
            self._size += len(known)
            self._known.move_to_end(agent)

    def _unknown(self, rows: Mapping[UUID, Collection[Reading]]) -> dict[UUID, dict[str, Reading]]:
        unknown: dict[UUID, dict[str, Reading]] = {}
        nothing: dict[str, SeriesFacts] = {}
        for agent, readings in rows.items():
            known = self._known.get(agent, nothing)
            if known is not nothing:
                self._known.move_to_end(agent)
            for reading in readings:
                facts = known.get(reading.metric_name)
                if facts is None or facts != (reading.unit, reading.protocol, reading.device_uuid):
                    unknown.setdefault(agent, {})[reading.metric_name] = reading
        return unknown


async def _within_quotas(
    tx: Tx, new: list[Series], most: Mapping[TenantId, int]
) -> tuple[list[Series], set[SeriesKey]]:
    """Return the series that their tenants' quotas allow, and the keys of the others."""
    left = {
        tenant: await quotas.series_left(tx, tenant, most[tenant])
        for tenant in sorted({series.tenant_id for series in new})  # sorted, so that workers cannot deadlock
        if tenant in most
    }
    kept: list[Series] = []
    refused: set[SeriesKey] = set()
    for series in new:
        tenant = series.tenant_id
        if left.get(tenant) == 0:
            refused.add((series.agent_uuid, series.metric_name))
            continue
        if tenant in left:
            left[tenant] -= 1
        kept.append(series)
    return kept, refused


def _series(agent: UUID, tenant: TenantId, reading: Reading) -> Series:
    return Series(
        agent_uuid=agent,
        metric_name=reading.metric_name,
        tenant_id=tenant,
        metric=reading.metric,
        device_name=reading.device_name,
        device_uuid=UUID(reading.device_uuid) if reading.device_uuid else None,
        endpoint_uuid=UUID(reading.endpoint_uuid) if reading.endpoint_uuid else None,
        unit=reading.unit,
        protocol=reading.protocol,
    )
