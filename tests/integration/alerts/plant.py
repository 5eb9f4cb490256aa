"""An agent whose readings, rules and clock a test controls."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from iotistica.alerting import watch_loading
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.rule_round import RuleRounds
from iotistica.alerting.watch import Watch
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.alerts.rules import RuleSpec
from iotistica.domain.alerts.targets import TargetSpec
from iotistica.domain.ids import AgentId, TenantId
from iotistica.domain.telemetry.readings import Reading
from iotistica.storage.agents import agents
from iotistica.storage.alerts import detector_states, incident_search, notice_search, rules, targets
from iotistica.storage.alerts.incident_search import IncidentFilter, Member
from iotistica.storage.alerts.incidents import Incident
from iotistica.storage.alerts.rules import NewRule, StoredRule
from iotistica.storage.delivery import ledger
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from tests.integration.telemetry.test_readings import reading, store

SERIES = """
INSERT INTO series (agent_uuid, metric_name, tenant_id, metric, device_name, protocol)
VALUES (%(agent)s, %(name)s, %(tenant)s, %(metric)s, %(device)s, 'modbus') ON CONFLICT DO NOTHING
"""
KEY = bytes(range(32))


class Plant:
    """A tenant with an agent; `start` is the moment from which the seconds of its methods count."""

    def __init__(self, database: Database, tenant: TenantId, agent: AgentId, start: datetime) -> None:
        self.database, self.tenant, self.agent, self.start = database, tenant, agent, start
        self.box = SecretBox(KEY)
        self.alarms: dict[str, str] = {}
        self.rounds: RuleRounds | None = None

    def at(self, second: float) -> datetime:
        return self.start + timedelta(seconds=second)

    def us(self, second: float) -> int:
        return int(self.at(second).timestamp() * 1e6)

    async def add_agent(self, name: str = "another") -> AgentId:
        new = AgentId(uuid4())
        async with self.database.transaction() as tx:
            await agents.add(tx, self.tenant, new, name, key=KEY, by=PLATFORM)
        return new

    async def add_rule(
        self, condition: dict[str, Any], *, old: StoredRule | None = None, is_enabled: bool = True, **fields: Any
    ) -> StoredRule:
        """Add a rule, or replace `old`; `fields` are those of its definition in JSON, and its severity."""
        severity = fields.pop("severity", "warning")
        definition = msgspec.convert({"condition": condition} | fields, RuleSpec)
        definition.check()
        name = old.name if old else f"rule {uuid4()}"
        wanted = NewRule(name=name, definition=definition, severity=severity, is_enabled=is_enabled)
        async with self.database.transaction() as tx:
            return await rules.put(tx, self.tenant, wanted, old=old, most=None, by=PLATFORM)

    async def add_target(self, **fields: Any) -> UUID:
        channel = {"kind": "webhook", "url": "https://example.com/hook"}
        spec = msgspec.convert({"channel": channel} | fields, TargetSpec)
        spec.check()
        async with self.database.transaction() as tx:
            stored = await targets.put(
                tx, self.tenant, self.box, spec, name=f"target {uuid4()}", is_enabled=True, old=None, by=PLATFORM
            )
        return stored.target_id

    async def send(
        self,
        values: Iterable[tuple[float, float | None]],
        metric: str = "m",
        *,
        agent: AgentId | None = None,
        quality: str = "good",
        device: str | None = None,
    ) -> None:
        """Store readings: the seconds at which they were measured, and values."""
        rows: list[Reading] = [reading(metric, self.us(second), value, quality=quality) for second, value in values]
        await self.send_all({agent or self.agent: rows}, device=device)

    async def send_all(self, rows: dict[AgentId, list[Reading]], *, device: str | None = None) -> None:
        names = {(agent, row.metric_name) for agent, found in rows.items() for row in found}
        async with self.database.transaction() as tx:
            for agent, name in sorted(names):
                metric = name.removeprefix(f"{device}.") if device else name
                parameters = {"agent": agent, "name": name, "tenant": self.tenant, "metric": metric}
                await tx.execute(SERIES, parameters | {"device": device})
        by_uuid: dict[UUID, list[Reading]] = {}
        by_uuid.update(rows.items())
        await store(self.database, self.tenant, by_uuid)

    async def round(self, second: float, *, lagging: Sequence[str] = ()) -> None:
        """Apply the rules at a moment, as the process that holds the lease does every second."""
        if self.rounds is None:
            await self.load(second)
        assert self.rounds is not None
        await self.rounds.run(self.at(second), lagging)

    async def reload(self, second: float) -> None:
        """Load again what the rules watch, as the process that applies them does when one was edited."""
        assert self.rounds is not None
        await self.rounds.save(self.at(second), is_last=False)
        await self.load(second, previous=self.watch)

    async def load(self, second: float, *, judged_at: float | None = None, previous: Watch | None = None) -> None:
        """Load what the rules of this tenant watch, as a process does that starts or takes over."""
        async with self.database.transaction() as tx:
            xmin = await ledger.xmin(tx)
            self.watch = watch = await watch_loading.load(tx, self.at(second), previous=previous, only=self.tenant)
        announcer = Announcer(self.box, "")
        self.rounds = RuleRounds(
            self.database,
            watch,
            announcer,
            self.alarms,
            xmin,
            only=self.tenant,
            judged_at=None if judged_at is None else self.at(judged_at),
        )

    def kill(self) -> None:
        """Forget everything that was not stored."""
        self.rounds = None

    async def accept_since(self, second: float) -> None:
        """Let the platform have accepted messages since a moment."""
        async with self.database.transaction() as tx:
            await tx.execute("UPDATE presence_watch SET since = %(at)s", {"at": self.at(second)})

    async def incidents(self) -> list[Incident]:
        """All incidents, the oldest first."""
        async with self.database.transaction() as tx:
            found = await incident_search.page(tx, self.tenant, IncidentFilter(), before=None, limit=1000)
        return list(reversed(found))

    async def members(self, incident: Incident, *, active: bool = False) -> list[Member]:
        async with self.database.transaction() as tx:
            return await incident_search.members(tx, self.tenant, incident.incident_id, active=active, limit=10_000)

    async def notices(self) -> list[tuple[str, str]]:
        """The kinds and states of all notices, the oldest first."""
        async with self.database.transaction() as tx:
            found = await notice_search.page(
                tx, self.tenant, status=None, incident=None, target=None, before=None, limit=10_000
            )
        return [(notice.kind, notice.status) for notice in sorted(found, key=lambda notice: notice.id)]

    async def detectors(self, second: float) -> dict[str, bytes]:
        """What the detectors of the agent know, by the series, after a save."""
        assert self.rounds is not None
        await self.rounds.save(self.at(second))
        async with self.database.transaction() as tx:
            found = await detector_states.load(tx, [self.tenant], [self.agent])
        return {name: state.to_bytes() for name, state in found.get(self.agent, {}).items()}

    async def states(self) -> list[bytes]:
        """What is stored of what the rules remember, byte by byte."""
        async with self.database.transaction() as tx:
            cursor = await tx.execute(
                "SELECT packed FROM alert_states WHERE tenant_id = %(tenant)s ORDER BY agent_uuid",
                {"tenant": self.tenant},
            )
            return [row[0] for row in await cursor.fetchall()]


def minutes_ago(minutes: float) -> datetime:
    """A moment in the past, to the second."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).replace(microsecond=0)
