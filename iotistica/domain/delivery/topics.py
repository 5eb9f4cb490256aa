"""The topics that agents publish to: which are consumed, and the tenant, agent and stream of each."""

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from iotistica.domain.ids import AgentId, TenantId, decode_agent, decode_tenant
from iotistica.errors import InvalidMessage

Stream = Literal["readings", "control", "logs"]

CONSUMED: Final = (b"endpoints", b"metrics", b"meta", b"state", b"logs", b"agent", b"jobs")
STREAMS: Final[dict[bytes, Stream]] = {
    b"meta": "control",
    b"state": "control",
    b"agent": "control",
    b"jobs": "control",
    b"logs": "logs",
}
"""The stream of each topic; all other topics go to `readings`. Control messages are applied in order."""
LONGEST: Final = 512  # bytes in a topic

# Add a filter only when a consumer handles its messages.
FILTERS: Final = tuple(
    f"i/+/a/+/{subtopic}"
    for subtopic in (
        "endpoints/#",
        "metrics",
        "meta/#",
        "state",
        "logs/#",
        "agent/+",
        "jobs/+/update",
        "jobs/start-next",
    )
)


class Route(NamedTuple):
    """The tenant, agent and stream of a topic; `subtopic` is the part after `i/<tenant>/a/<agent>/`."""

    tenant: TenantId
    agent: AgentId
    subtopic: bytes
    stream: Stream

    @property
    def is_ordered(self) -> bool:
        return self.stream == "control"


def route(topic: bytes) -> Route:
    """Return the route of a message by its topic; raises `InvalidMessage`."""
    if len(topic) > LONGEST:
        raise InvalidMessage("bad_topic", f"longer than {LONGEST} bytes")
    return _route(topic)


@lru_cache(maxsize=65_536)
def _route(topic: bytes) -> Route:
    parts = topic.split(b"/", 4)
    if len(parts) != 5 or parts[0] != b"i" or parts[2] != b"a":
        raise InvalidMessage("bad_topic")
    try:
        tenant, agent = decode_tenant(parts[1]), decode_agent(parts[3])
    except ValueError as exc:
        raise InvalidMessage("bad_topic", str(exc)) from exc
    first = parts[4].split(b"/", 1)[0]
    if first not in CONSUMED:
        raise InvalidMessage("bad_topic", "no consumer handles this topic")
    return Route(tenant, agent, parts[4], STREAMS.get(first, "readings"))


def protocol_of(subtopic: bytes) -> str:
    """Return the protocol in an `endpoints/…` topic (the segment after `endpoints`), or "unknown"."""
    return subtopic.split(b"/", 2)[1].decode("utf-8", "replace") if b"/" in subtopic else "unknown"
