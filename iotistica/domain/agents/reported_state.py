"""What an agent says of itself: its reports, merged key by key whatever the order in which they come."""

from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain import codec, documents
from iotistica.domain.documents import Change
from iotistica.errors import InvalidMessage

KEYS: Final = 100  # of one report, and of a state
KEY_CAP: Final = 100  # characters of one
STATE_CAP: Final = 4 << 20  # bytes of JSON that one agent's state may take

_SIZES: Final = ("memory_usage", "memory_total", "memory_percent", "storage_usage", "storage_total")
METRIC_KEYS: Final = frozenset(("cpu_usage", "cpu_temp", "temperature", "uptime", *_SIZES))
"""Numbers that become readings of protocol `system`."""
VOLATILE_KEYS: Final = METRIC_KEYS | {"endpoints_health", "publish_health", "vpn_health", "top_processes"}
"""What is new in nearly every report: kept apart from what seldom changes."""
_KNOWN: Final = VOLATILE_KEYS.union(
    ("apps", "config", "version", "is_online", "devices", "os_version", "agent_version", "architecture"),
    ("network_interfaces", "local_ip", "ip_address", "mac_address", "provisioning_state"),
)
HEALTH: Final = ("protocol", "status", "connected", "lastError")
"""What of an endpoint's health is worth telling when it changes; the rest is counters and times."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One report; `received` in us since the epoch. One that carries a `version` is live, others are replays."""

    values: dict[str, Any]
    received: int
    is_live: bool

    @property
    def metrics(self) -> dict[str, Any]:
        """What of it becomes readings: of a live report alone, a replay does not say when it was."""
        if not self.is_live:
            return {}
        values = self.values
        return {k: values[k] for k in METRIC_KEYS & values.keys() if isinstance(values[k], (int, float))}


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent last said of each key; `stamps` say when it came, in us since the epoch, 0 for a replay's."""

    values: dict[str, Any]
    stamps: dict[str, int]


EMPTY: Final = ReportedState(values={}, stamps={})


def parse_report(payload: bytes, agent: UUID, received: int) -> Report:
    """The report that a payload is, `{"<uuid>": {…}}` or what stands inside that; raises `InvalidMessage`.

    An id inside the payload never makes it another agent's: a foreign one is refused.
    """
    document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
    if document.count(b",") > 2 * documents.VALUES:  # those inside of texts of JSON among them
        raise InvalidMessage("too_large", f"more than {documents.VALUES} values")
    root = codec.decode(document, is_msgpack, object)
    if isinstance(root, str):
        root = codec.decode(root.encode("utf-8", "replace"), False, object)
    if not isinstance(root, dict):
        raise InvalidMessage("unknown_shape", 'a report is {"<uuid>": {…}}')
    named = {key: body for key, body in root.items() if _uuid(key)}
    if foreign := [key for key in named if _uuid(key) != agent]:
        raise InvalidMessage("foreign_agent", f"it speaks of {foreign[0]}, and comes from {agent}")
    body = next(iter(named.values()), root)
    if not isinstance(body, dict) or not (named or _KNOWN & body.keys()):
        raise InvalidMessage("unknown_shape", 'a report is {"<uuid>": {…}}')
    if documents.is_large(body):
        raise InvalidMessage("too_large", f"more than {documents.VALUES} values")
    if len(body) > KEYS or any(not isinstance(key, str) or len(key) > KEY_CAP for key in body):
        raise InvalidMessage("unknown_shape", f"more than {KEYS} keys, or one that is longer than {KEY_CAP}")
    values = documents.clean(body)
    values.pop("msgId", None)
    return Report(values=values, received=received, is_live=_is_number(values.get("version")))


def merge(state: ReportedState, report: Report) -> ReportedState:
    """The state after a report: of each key the live report that came last counts, a replay only where none spoke.

    Reports may come in any order and again: the state is the same, and that of the live ones alone where these
    speak.
    """
    values, stamps = dict(state.values), dict(state.stamps)
    stamp = report.received if report.is_live else 0
    for key, value in report.values.items():
        if key not in stamps and len(stamps) >= KEYS:
            raise InvalidMessage("too_many_keys", f"the state has {KEYS} keys already, and {key!r} is none of them")
        if stamp > stamps.get(key, -1):
            values[key], stamps[key] = value, stamp
    return ReportedState(values=values, stamps=stamps)


def changes(old: ReportedState, new: ReportedState) -> list[Change]:
    """What is worth telling of the difference: not measured values, nor counters and times of health."""
    return documents.differences(_telling(old.values), _telling(new.values))


def _telling(values: dict[str, Any]) -> dict[str, Any]:
    telling = {key: value for key, value in values.items() if key not in VOLATILE_KEYS}
    health = values.get("endpoints_health")
    if isinstance(health, dict):
        telling["endpoints_health"] = {
            name: {key: facts[key] for key in HEALTH if key in facts}
            for name, facts in health.items()
            if isinstance(facts, dict)
        }
    return telling


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _uuid(key: object) -> UUID | None:
    try:
        return UUID(key) if isinstance(key, str) and len(key) == 36 else None
    except ValueError:
        return None
