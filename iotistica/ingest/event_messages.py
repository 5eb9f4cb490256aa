"""Messages of agents about events, above all anomalies that they detected themselves."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain import codec, documents
from iotistica.domain.access import document_secrets
from iotistica.domain.alerts import events, incident_events
from iotistica.domain.alerts.events import Event
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage
from iotistica.storage.alerts import events as table
from iotistica.storage.alerts import incidents
from iotistica.storage.alerts.events import NewEvent
from iotistica.storage.delivery.live import LiveUpdate
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent, hourly_key
from iotistica.storage.postgres import Tx

TOPIC: Final = b"events/"
SIZE: Final = 64 << 10  # bytes of a message, inflated
CAUSES: Final = 20  # fingerprints of one agent for which incidents are open; further events are stored only
CONTENT: Final = 16 << 10  # bytes of JSON of the fields that have no column


class EventMessages:
    """The events of one tenant's agents in one transaction, in order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._sent: list[NewEvent] = []
        self._stored: list[NewEvent] = []

    def add(self, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Collect an event, received at `received` us; raises `InvalidMessage`."""
        document, is_msgpack = codec.unwrap(payload, cap=SIZE)
        content: Any = document_secrets.mask(documents.clean(codec.decode(document, is_msgpack, object)))
        at = datetime.fromtimestamp(received / 1e6, UTC)
        event = events.parse(subtopic.removeprefix(TOPIC).decode("utf-8", "replace"), content, at, payload)
        if len(msgspec.json.encode((event.content, event.baseline))) > CONTENT:
            raise InvalidMessage("too_large", f"an event can have at most {CONTENT >> 10} KiB of further fields")
        self._sent.append(NewEvent(agent, at, event))

    @property
    def agents(self) -> set[UUID]:
        """The agents that sent these events."""
        return {new.agent for new in self._sent}

    async def write(self, tx: Tx) -> None:
        """Store the events that were not stored before, and add them to the timeline."""
        self._stored = await table.add(tx, self._tenant, self._sent)
        told = [new for new in self._stored if not new.event.is_suppressed]
        await timeline.add(tx, self._tenant, [_on_timeline(new) for new in told])
        for new in told:
            if incident_events.opens_incident(new.event, new.received_at):
                if await self._is_flooding(tx, new.agent, new.event):
                    continue
                cause, member = incident_events.member_of(new.agent, new.event, new.received_at)
                await incidents.open_members(tx, self._tenant, cause, [member], new.received_at)

    async def _is_flooding(self, tx: Tx, agent: UUID, event: Event) -> bool:
        """Whether an agent has opened so many incidents of different causes that this is no anomaly any more."""
        key = f"event {event.fingerprint}"
        known = await incidents.event_causes(tx, self._tenant, agent, most=CAUSES + 1)
        return key not in known and len(known) > CAUSES

    def news(self) -> list[LiveUpdate]:
        """Return the live updates to publish after the commit."""
        return [
            LiveUpdate(self._tenant, new.agent, "events", {"type": "event", "agent": new.agent} | _shown(new.event))
            for new in self._stored
            if not new.event.is_suppressed
        ]


def _on_timeline(new: NewEvent) -> TimelineEvent:
    """Return the timeline's row of an event; those of one cause within an hour share it."""
    event = new.event
    key = hourly_key(event.fingerprint, new.received_at) if event.fingerprint else None
    return TimelineEvent(
        agent=new.agent, at=new.received_at, kind=f"event.{event.type}", details=_shown(event), dedupe_key=key
    )


def _shown(event: Event) -> dict[str, Any]:
    facts = {
        "event": event.type,
        "messageId": event.message_id,
        "time": event.time,
        "severity": event.severity,
        "text": event.text,
        "metricName": event.metric_name,
        "fingerprint": event.fingerprint,
        "value": event.value,
        "score": event.score,
    }
    return {name: value for name, value in facts.items() if value is not None}
