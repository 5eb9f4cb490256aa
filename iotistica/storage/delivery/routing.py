"""Routing of messages to tenants' streams or, with a reason, to dead letters."""

import hashlib
from collections.abc import Collection, Iterable

from iotistica.domain.codec import PAYLOAD_CAP
from iotistica.domain.delivery import topics
from iotistica.domain.ids import TenantId
from iotistica.errors import InvalidMessage
from iotistica.storage.delivery.dead_letters import HEAD_BYTES, NewDeadLetter
from iotistica.storage.delivery.spool_segment import Message, MessageCounts
from iotistica.storage.delivery.streams import KIND_BY_NAME, StreamKey


class RoutedMessages:
    """Messages by destination: tenants' streams, tenants' dead letters, the platform's dead letters."""

    def __init__(self, messages: Iterable[Message], received: int) -> None:
        """Route by topic and payload size; `received` of the first message is in us since the epoch."""
        self.streams: dict[StreamKey, list[Message]] = {}
        self.too_large: dict[TenantId, list[NewDeadLetter]] = {}
        self.unknown: list[NewDeadLetter] = []
        self._received = received
        for message in messages:
            topic, payload = message
            try:
                route = topics.route(topic)
            except InvalidMessage as exc:
                self.unknown.append(
                    NewDeadLetter(topic[:HEAD_BYTES], payload[:HEAD_BYTES], received, exc.code, exc.detail)
                )
                continue
            if len(payload) > PAYLOAD_CAP:
                digest = f"{len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()}"
                letter = NewDeadLetter(
                    topic, payload[:HEAD_BYTES], received, "too_large", digest, size=len(payload)
                )
                self.too_large.setdefault(route.tenant, []).append(letter)
            else:
                self.streams.setdefault((route.tenant, KIND_BY_NAME[route.stream]), []).append(message)

    @property
    def tenants(self) -> set[TenantId]:
        return {tenant for tenant, _ in self.streams} | self.too_large.keys()

    def move_unknown_tenants(self, tenants: Collection[TenantId]) -> None:
        """Move the messages of these tenants, which do not exist, to the platform's dead letters."""
        for tenant in tenants:
            self.unknown += self.too_large.pop(tenant, ())
            for key in [key for key in self.streams if key[0] == tenant]:
                for topic, payload in self.streams.pop(key):
                    self.unknown.append(NewDeadLetter(topic, payload, self._received, "unknown_tenant", ""))


def count_by_tenant(messages: Iterable[Message]) -> dict[TenantId, MessageCounts]:
    """Count the messages of each tenant, and those of them that must keep their order."""
    counts: dict[TenantId, list[int]] = {}
    for topic, _ in messages:
        try:
            route = topics.route(topic)
        except InvalidMessage:
            continue
        count = counts.setdefault(route.tenant, [0, 0])
        count[0] += 1
        count[1] += route.is_ordered
    return {tenant: MessageCounts(*count) for tenant, count in counts.items()}
