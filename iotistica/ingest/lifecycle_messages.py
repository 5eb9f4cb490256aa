"""Lifecycle messages of agents: starts, stops, versions, and the progress of updates."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain import codec, documents, timestamps
from iotistica.domain.access import document_secrets
from iotistica.domain.control import agent_updates
from iotistica.domain.control.agent_updates import OPEN
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage
from iotistica.storage.control import agent_updates as table
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Tx

TOPIC: Final = b"agent/"
OURS: Final = (b"agent/update",)
"""Topics of commands that the platform sends to agents; messages on them are ignored."""
SIZE: Final = 8 << 10  # bytes of a message; the timeline stores it
PLATFORM_WORDS: Final = frozenset(
    {
        *("added", "changed", "registered", "registration_refused", "proven", "key_rotated", "key_adopted"),
        *("revoked", "re_enrolled", "retired", "replaced", "inherited", "update_commanded"),
    }
)
"""Words of events that only the platform can cause: as the agent's own, they would be taken for those."""
NOT_SHOWN: Final = ("msgId", "type", "timestamp", "by")
"""Fields of a message that its event does not have; `by` names who has caused an event of the platform."""


class LifecycleMessage(msgspec.Struct, frozen=True, kw_only=True):
    agent: UUID
    kind: str
    content: dict[str, Any]
    at: datetime
    """When the platform received it."""
    sent_at: datetime | None
    """The agent's own time stamp."""


class LifecycleMessages:
    """The lifecycle messages of one tenant's agents in one transaction, in order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._signs: list[LifecycleMessage] = []

    def add(self, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Collect a message, received at `received` us; raises `InvalidMessage`."""
        if subtopic in OURS:
            return
        document, is_msgpack = codec.unwrap(payload, cap=SIZE)
        content = document_secrets.mask(documents.clean(codec.decode(document, is_msgpack, object)))
        if not isinstance(content, dict):
            raise InvalidMessage("unknown_shape", "a message on agent/… must be an object")
        word = subtopic.removeprefix(TOPIC).decode("utf-8", "replace")
        if word == "status":
            word = content["type"] if isinstance(content.get("type"), str) else "status"
        if word in PLATFORM_WORDS:
            word = f"reported_{word}"
        self._signs.append(
            LifecycleMessage(
                agent=agent,
                kind=f"agent.{word[:64]}",
                content={key: value for key, value in content.items() if key not in NOT_SHOWN},
                at=datetime.fromtimestamp(received / 1e6, UTC),
                sent_at=_time(content.get("timestamp")),
            )
        )

    @property
    def agents(self) -> set[UUID]:
        """The agents that sent these messages."""
        return {sign.agent for sign in self._signs}

    async def write(self, tx: Tx) -> None:
        """Add the messages to the timeline, and advance the updates that they report on."""
        if not self._signs:
            return
        current = await table.open_updates(tx, self._tenant, self.agents)
        events = []
        for sign in self._signs:
            answer = sign.kind.removeprefix("agent.")
            if answer in agent_updates.STATUS_BY_ANSWER:
                update = current.get(sign.agent)
                status = agent_updates.status_after(update.status, answer) if update else None
                if (
                    update is None
                    or status is None
                    or not agent_updates.answers_command(sign.sent_at, update.issued_at)
                ):
                    continue  # a retained message that was already reported
                changed = msgspec.structs.replace(
                    update, status=status, reason=agent_updates.reason_of(sign.content), changed_at=sign.at
                )
                await table.save_status(tx, self._tenant, changed, is_open=status in OPEN)
                current[sign.agent] = changed
            events.append(TimelineEvent(agent=sign.agent, at=sign.at, kind=sign.kind, details=sign.content))
        await timeline.add(tx, self._tenant, events)


def _time(stamp: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamps.parse_us(stamp) / 1e6, UTC)
    except InvalidMessage:
        return None
