"""State reports of agents: the reports of one transaction are merged and written together."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.access import document_secrets
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.agents import reported_state
from iotistica.domain.agents.reported_state import Report, ReportedState
from iotistica.domain.control import explanation
from iotistica.domain.ids import TenantId, agent_topic
from iotistica.errors import InvalidMessage
from iotistica.storage.agents import reported_states as table
from iotistica.storage.delivery.live import LiveUpdate
from iotistica.storage.delivery.streams import Message
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Tx

CHANGED: Final = "state.changed"
"""Event kind: an agent's reported state has changed."""
REACHED: Final = "target.reported"
"""Event kind: an agent reports another version of its target than before."""


FAILING: Final = "state.failing"
"""Event kind: an agent reports that a device or a service of it fails."""
RECOVERED: Final = "state.recovered"
"""Event kind: what has failed no longer does."""
FAULTS_LISTED: Final = 20  # events of each kind that one report causes
FLAPPING_MINUTES: Final = 5  # in which the same fault is one row


class StateReports:
    """The reports of one tenant's agents in one transaction, in order."""

    def __init__(self, tenant: TenantId, box: SecretBox) -> None:
        self._tenant = tenant
        self._box = box
        self._reports: defaultdict[UUID, list[tuple[int, Report]]] = defaultdict(list)

    def add(self, number: int, agent: UUID, payload: bytes, received: int) -> None:
        """Collect the report of message `number`, received at `received` us; raises `InvalidMessage`."""
        report = reported_state.parse_report(payload, agent, received)
        sealed = msgspec.structs.replace(report, values=self._box.seal(report.values, self._tenant))
        self._reports[agent].append((number, sealed))

    async def write(self, tx: Tx) -> dict[int, InvalidMessage]:
        """Merge the reports and write the resulting states; returns the refused reports by message number."""
        if not self._reports:
            return {}
        refused: dict[int, InvalidMessage] = {}
        stored = await table.load_for_update(tx, self._tenant, self._reports)
        states = {}
        events = []
        for agent, reports in self._reports.items():
            before = stored[agent].merged if agent in stored else reported_state.EMPTY
            merging = _MergedState(before)
            for number, report in reports:
                try:
                    merging.merge(report)
                except InvalidMessage as exc:
                    refused[number] = exc
                await asyncio.sleep(0)  # let other tasks run
            states[agent] = state = merging.state
            if changes := reported_state.changes(before, state):
                at = datetime.fromtimestamp(reports[-1][1].received / 1e6, UTC)
                details = {"changes": [document_secrets.mask(msgspec.to_builtins(change)) for change in changes]}
                events.append(TimelineEvent(agent=agent, at=at, kind=CHANGED, details=details))
                versions = before.values.get("version"), state.values.get("version")
                if versions[0] != versions[1]:
                    facts = {"before": versions[0], "version": versions[1]}
                    events.append(TimelineEvent(agent=agent, at=at, kind=REACHED, details=facts))
                events += _fault_events(agent, at, before, state)
        await table.save(tx, self._tenant, states, stored)
        await timeline.add(tx, self._tenant, events)
        return refused

    def metrics(self) -> list[Message]:
        """Return the measured values of live reports as separate messages, with the times of their reception."""
        messages = []
        for agent, reports in self._reports.items():
            topic = f"{agent_topic(self._tenant, agent)}/metrics".encode()
            messages += [
                (topic, msgspec.json.encode({"timestamp": report.received, **measured}))
                for _, report in reports
                if (measured := report.metrics)
            ]
        return messages

    def news(self) -> list[LiveUpdate]:
        """Return the updates for clients that watch these agents."""
        updates = []
        for agent, reports in self._reports.items():
            for _, report in reports:
                if not report.is_live:
                    continue
                head = {"agentUuid": str(agent), "at": datetime.fromtimestamp(report.received / 1e6, UTC)}
                measured = report.metrics
                rest = {key: value for key, value in report.values.items() if key not in measured}
                updates.append(
                    LiveUpdate(self._tenant, agent, "state", head | {"state": document_secrets.mask(rest)})
                )
                if measured:
                    updates.append(LiveUpdate(self._tenant, agent, "metrics", head | {"metrics": measured}))
        return updates


def _fault_events(agent: UUID, at: datetime, before: ReportedState, after: ReportedState) -> list[TimelineEvent]:
    """Return events for what has begun to fail and for what works again; what flaps is counted."""
    health = [{key: state.values.get(key) for key in ("endpoints_health", "apps")} for state in (before, after)]
    if health[0] == health[1]:
        return []
    old, new = ({f.what: f.error for f in explanation.faults(document_secrets.mask(each))} for each in health)
    failing = [(FAILING, what, {"what": what, "error": error}) for what, error in new.items() if what not in old]
    recovered = [(RECOVERED, what, {"what": what}) for what in old if what not in new]
    time = f"{at.astimezone(UTC):%Y-%m-%dT%H}:{at.minute // FLAPPING_MINUTES}"
    return [
        TimelineEvent(agent=agent, at=at, kind=kind, details=details, dedupe_key=f"{what} {time}")
        for kind, what, details in failing[:FAULTS_LISTED] + recovered[:FAULTS_LISTED]
    ]


class _MergedState:
    """A state into which reports are merged.

    Keeps the size of each key, so that a report does not require encoding the whole, possibly much larger, state.
    """

    def __init__(self, state: reported_state.ReportedState) -> None:
        self.state = state
        self._sizes = {key: _size(value) for key, value in state.values.items()}

    def merge(self, report: Report) -> None:
        """Merge a report; raises `InvalidMessage`, and leaves the state unchanged, if the result is too large."""
        merged = reported_state.merge(self.state, report)
        sizes = {key: _size(value) for key, value in report.values.items() if merged.values[key] is value}
        if sum((self._sizes | sizes).values()) > reported_state.STATE_CAP:
            raise InvalidMessage(
                "too_large", f"the agent's state would be more than {reported_state.STATE_CAP} bytes"
            )
        self.state = merged
        self._sizes |= sizes


def _size(value: object) -> int:
    return len(msgspec.json.encode(value))
