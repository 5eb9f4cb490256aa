"""The topics that agents publish to: which are read, and the tenant, agent and stream of each."""

import difflib
import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from iotistica.domain.ids import AgentId, TenantId, decode_agent, decode_tenant
from iotistica.errors import InvalidMessage

Stream = Literal["readings", "control", "logs"]

READ: Final = re.compile(
    rb"endpoints(/.*)?|metrics|meta/dictionary(/delta)?|state|logs/.+|agent/[^/]+|events/[^/]+|jobs/[^/]+/update|jobs/start-next",
    re.DOTALL,
)
"""What is read of the topics below `i/<tenant>/a/<agent>/`; messages on others become dead letters."""
STREAMS: Final[dict[bytes, Stream]] = {
    b"meta": "control",
    b"state": "control",
    b"agent": "control",
    b"events": "control",
    b"jobs": "control",
    b"logs": "logs",
}
"""The stream of each topic; all other topics go to `readings`. Control messages are applied in order."""
LONGEST: Final = 512  # bytes in a topic

FILTERS: Final = ("i/+/a/+/#",)
"""Everything below the agents' own prefixes, so that a message on a topic that nobody reads leaves a trace."""
EARLIER_FILTERS: Final = tuple(
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
"""Filters of earlier versions, which a session can still have: two that match would deliver a message twice."""
_EXAMPLES: Final = (
    *(
        "endpoints/{protocol}",
        "metrics",
        "state",
        "logs/{container}",
        "agent/{word}",
        "events/{type}",
        "jobs/{id}/update",
    ),
    *("jobs/start-next", "meta/dictionary"),
)


class Route(NamedTuple):
    """The tenant, agent and stream of a topic; `subtopic` is the part after `i/<tenant>/a/<agent>/`."""

    tenant: TenantId
    agent: AgentId
    subtopic: bytes
    stream: Stream
    is_read: bool
    """Whether the topic is one that is read."""

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
    if len(parts) < 4 or parts[0] != b"i" or parts[2] != b"a":
        raise InvalidMessage("bad_topic")
    try:
        tenant, agent = decode_tenant(parts[1]), decode_agent(parts[3])
    except ValueError as exc:
        raise InvalidMessage("bad_topic", str(exc)) from exc
    subtopic = parts[4] if len(parts) > 4 else b""
    stream = STREAMS.get(subtopic.split(b"/", 1)[0], "readings")
    return Route(tenant, agent, subtopic, stream, READ.fullmatch(subtopic) is not None)


def why_unknown(subtopic: bytes) -> str:
    """Return what to say of a message on a topic that is not read; it names one that is and looks alike."""
    text = "".join(c for c in subtopic.decode("utf-8", "replace") if c.isprintable())[:100]
    first = text.split("/", 1)[0].lower()
    names = {example.split("/", 1)[0]: example for example in reversed(_EXAMPLES)}
    alike = difflib.get_close_matches(first, names, n=1, cutoff=0.7)
    hint = f"Did you mean {names[alike[0]]}?" if alike else "Readings belong on endpoints/{protocol}."
    said = f"nothing reads the topic {text}" if text else "nothing reads the agent's own prefix"
    return f"{said}. {hint}"


def protocol_of(subtopic: bytes) -> str:
    """Return the protocol in an `endpoints/…` topic (the segment after `endpoints`), or "unknown"."""
    return subtopic.split(b"/", 2)[1].decode("utf-8", "replace") if b"/" in subtopic else "unknown"
