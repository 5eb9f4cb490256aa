"""What agents say of their own life: starts, stops, versions, and how an update goes."""

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
"""Commands to agents, which nobody sends to us."""
SIZE: Final = 8 << 10  # bytes of a message, which the timeline keeps


class LifecycleMessage(msgspec.Struct, frozen=True, kw_only=True):
    agent: UUID
    kind: str
    content: dict[str, Any]
    at: datetime
    """When it came."""
    said_at: datetime | None
    """When the agent says that it was."""


class LifecycleMessages:
    """What the agents of one tenant say in one transaction, in its order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._signs: list[LifecycleMessage] = []

    def add(self, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Take a message; raises `InvalidMessage`."""
        if subtopic in OURS:
            return
        document, is_msgpack = codec.unwrap(payload, cap=SIZE)
        content = document_secrets.mask(documents.clean(codec.decode(document, is_msgpack, object)))
        if not isinstance(content, dict):
            raise InvalidMessage("unknown_shape", "an object is expected on agent/…")
        word = subtopic.removeprefix(TOPIC).decode("utf-8", "replace")
        if word == "status":
            word = content["type"] if isinstance(content.get("type"), str) else "status"
        self._signs.append(
            LifecycleMessage(
                agent=agent,
                kind=f"agent.{word[:64]}",
                content={key: value for key, value in content.items() if key not in ("msgId", "type", "timestamp")},
                at=datetime.fromtimestamp(received / 1e6, UTC),
                said_at=_time(content.get("timestamp")),
            )
        )

    @property
    def agents(self) -> set[UUID]:
        """Who spoke."""
        return {sign.agent for sign in self._signs}

    async def write(self, tx: Tx) -> None:
        """Put them on the timeline, and move the updates on that they speak of."""
        if not self._signs:
            return
        current = await table.open_updates(tx, self._tenant, self.agents)
        happened = []
        for sign in self._signs:
            answer = sign.kind.removeprefix("agent.")
            if answer in agent_updates.STATUS_BY_ANSWER:
                update = current.get(sign.agent)
                new = agent_updates.status_after(update.status, answer) if update else None
                if (
                    update is None
                    or new is None
                    or not agent_updates.answers_command(sign.said_at, update.issued_at)
                ):
                    continue  # retained by the broker, and told before
                moved = msgspec.structs.replace(
                    update, status=new, reason=agent_updates.reason_of(sign.content), changed_at=sign.at
                )
                await table.save_status(tx, self._tenant, moved, is_open=new in OPEN)
                current[sign.agent] = moved
            happened.append(TimelineEvent(agent=sign.agent, at=sign.at, kind=sign.kind, details=sign.content))
        await timeline.add(tx, self._tenant, happened)


def _time(stamp: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamps.parse_us(stamp) / 1e6, UTC)
    except InvalidMessage:
        return None
