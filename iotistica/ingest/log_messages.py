"""Log lines of one transaction: collected message by message, then written together."""

from typing import Final
from uuid import UUID

from iotistica.domain.agents import log_lines
from iotistica.domain.agents.log_lines import LogBatch
from iotistica.domain.ids import TenantId
from iotistica.instruments import LOG_LINES
from iotistica.storage.agents import logs as table
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.telemetry import partitions

TOPIC: Final = b"logs/"


class LogMessages:
    """The log lines of one tenant's agents in one transaction, in order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._batches: list[tuple[UUID, LogBatch]] = []

    def add(self, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Collect a message, received at `received` us; raises `InvalidMessage`."""
        service = subtopic.removeprefix(TOPIC).decode("utf-8", "replace")
        batch = log_lines.parse_lines(
            payload, received, service="agent" if service == log_lines.HTTP else service[: log_lines.SERVICE]
        )
        self._batches.append((agent, batch))

    @property
    def batches(self) -> list[tuple[UUID, LogBatch]]:
        """The collected batches, each with its agent."""
        return self._batches

    async def write(self, tx: Tx, database: Database) -> None:
        """Store the lines; missing partitions are created before, in separate transactions."""
        if not self._batches:
            return
        missing = table.days_of(self._batches) - await partitions.existing(tx, "agent_logs")
        await partitions.create(database, missing, "agent_logs")
        stored = await table.store(tx, self._tenant, self._batches)
        LOG_LINES.add(stored, {"outcome": "stored"})
        LOG_LINES.add(sum(batch.dropped for _, batch in self._batches), {"outcome": "dropped"})
