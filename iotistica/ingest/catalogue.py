"""The series this process knows, so that the database hears only of new ones."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple
from uuid import UUID

from loguru import logger

from iotistica.domain.ids import TenantId
from iotistica.domain.readings import Reading
from iotistica.instruments import SERIES
from iotistica.storage import series as table
from iotistica.storage.postgres import Tx
from iotistica.storage.series import Series

KNOWN: Final = 500_000  # series remembered at most


class Facts(NamedTuple):
    unit: str | None
    protocol: str
    device_uuid: str | None


Learned = dict[UUID, dict[str, Facts]]


class Catalogue:
    """What is known of each series; learnt only from committed transactions."""

    def __init__(self) -> None:
        self._known: Learned = {}
        self._size = 0

    async def write(
        self, tx: Tx, rows: Mapping[UUID, Collection[Reading]], tenants: Mapping[UUID, TenantId]
    ) -> Learned:
        """Write the series among these readings that are new or have changed; `learn` the answer after commit."""
        news = self._news(rows)
        if not news:
            return {}
        keys = [(agent, name) for agent, found in news.items() for name in found]
        stored = {(s.agent_uuid, s.metric_name): s for s in await table.get(tx, keys)}
        learned: Learned = {}
        new, changed, conflicts = [], [], 0
        for agent, found in news.items():
            for name, reading in found.items():
                known = stored.get((agent, name))
                device = reading.device_uuid
                if known is None:
                    new.append(_series(agent, tenants[agent], reading))
                else:
                    if (known.unit, known.protocol) != (reading.unit, reading.protocol):
                        changed.append(_series(agent, tenants[agent], reading))
                    owner = str(known.device_uuid) if known.device_uuid else None
                    conflicts += device is not None and owner is not None and device != owner
                learned.setdefault(agent, {})[name] = Facts(reading.unit, reading.protocol, device)
        if new:
            await table.add(tx, new)
        if changed:
            SERIES.add(await table.update(tx, changed), {"outcome": "changed"})
        if conflicts:
            SERIES.add(conflicts, {"outcome": "device_conflict"})
            logger.bind(series=conflicts).warning("another device reports under the name of a known series")
        return learned

    def learn(self, learned: Learned) -> None:
        """Remember what was committed."""
        if self._size > KNOWN:
            self._known.clear()
            self._size = 0
        for agent, found in learned.items():
            self._known.setdefault(agent, {}).update(found)
            self._size += len(found)

    def _news(self, rows: Mapping[UUID, Collection[Reading]]) -> dict[UUID, dict[str, Reading]]:
        news: dict[UUID, dict[str, Reading]] = {}
        nothing: dict[str, Facts] = {}
        for agent, readings in rows.items():
            known = self._known.get(agent, nothing)
            for reading in readings:
                facts = known.get(reading.metric_name)
                if facts is None or facts != (reading.unit, reading.protocol, reading.device_uuid):
                    news.setdefault(agent, {})[reading.metric_name] = reading
        return news


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
