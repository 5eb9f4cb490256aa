"""The reported state of an agent: parses its reports and merges them key by key, in any order of arrival."""

from typing import Any, Final
from uuid import UUID

import msgspec

from iotistica.domain import codec, documents
from iotistica.domain.documents import Change
from iotistica.errors import InvalidMessage

KEYS: Final = 100  # keys of one report, and of a state
KEY_CAP: Final = 100  # characters of a key
STATE_CAP: Final = 4 << 20  # bytes of JSON of one agent's state

_SIZES: Final = ("memory_usage", "memory_total", "memory_percent", "storage_usage", "storage_total")
METRIC_KEYS: Final = frozenset(("cpu_usage", "cpu_temp", "temperature", "uptime", *_SIZES))
"""Keys whose numbers become readings of protocol `system`."""
VOLATILE_KEYS: Final = METRIC_KEYS | {"endpoints_health", "publish_health", "vpn_health", "top_processes"}
"""Keys that change in nearly every report; they are stored apart from those that seldom change."""
_KNOWN: Final = VOLATILE_KEYS.union(
    ("apps", "config", "version", "is_online", "devices", "os_version", "agent_version", "architecture"),
    ("network_interfaces", "local_ip", "ip_address", "mac_address", "provisioning_state"),
)
HEALTH: Final = ("protocol", "status", "connected", "lastError")
"""The fields of an endpoint's health whose changes are reported; the others are counters and times."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One report; `received` is in us since the epoch. A report with a `version` is live, others are replays."""

    values: dict[str, Any]
    received: int
    is_live: bool

    @property
    def metrics(self) -> dict[str, Any]:
        """The values that become readings; empty for a replay, which does not say when its values were measured."""
        if not self.is_live:
            return {}
        values = self.values
        return {k: values[k] for k in METRIC_KEYS & values.keys() if isinstance(values[k], (int, float))}


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """The latest value of each key; `stamps` are times of receipt in us since the epoch, 0 for a replay's."""

    values: dict[str, Any]
    stamps: dict[str, int]


EMPTY: Final = ReportedState(values={}, stamps={})


def parse_report(payload: bytes, agent: UUID, received: int) -> Report:
    """Parse a payload, `{"<uuid>": {…}}` or only the inner object; raises `InvalidMessage`.

    A payload with the uuid of another agent is rejected, so that no agent can report for another.
    """
    document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
    if document.count(b",") > 2 * documents.VALUES:  # commas inside JSON strings are counted too
        raise InvalidMessage("too_large", f"more than {documents.VALUES} values")
    root = codec.decode(document, is_msgpack, object)
    if isinstance(root, str):
        root = codec.decode(root.encode("utf-8", "replace"), False, object)
    if not isinstance(root, dict):
        raise InvalidMessage("unknown_shape", 'a report must be {"<uuid>": {…}}')
    by_uuid = {key: body for key, body in root.items() if _uuid(key)}
    if foreign := [key for key in by_uuid if _uuid(key) != agent]:
        raise InvalidMessage("foreign_agent", f"the report is about {foreign[0]} but was sent by {agent}")
    body = next(iter(by_uuid.values()), root)
    if not isinstance(body, dict) or not (by_uuid or _KNOWN & body.keys()):
        raise InvalidMessage("unknown_shape", 'a report must be {"<uuid>": {…}}')
    if documents.is_large(body):
        raise InvalidMessage("too_large", f"more than {documents.VALUES} values")
    if len(body) > KEYS or any(not isinstance(key, str) or len(key) > KEY_CAP for key in body):
        raise InvalidMessage("unknown_shape", f"more than {KEYS} keys, or a key longer than {KEY_CAP} characters")
    values = documents.clean(body)
    values.pop("msgId", None)
    return Report(values=values, received=received, is_live=_is_number(values.get("version")))


def merge(state: ReportedState, report: Report) -> ReportedState:
    """Return the state after a report: each key has the value of the live report that was received last.

    A replay sets a key only if no live report has set it. The result does not depend on the order in which reports
    are merged, nor on repetitions; a key that a live report has set never depends on replays.
    """
    values, stamps = dict(state.values), dict(state.stamps)
    stamp = report.received if report.is_live else 0
    for key, value in report.values.items():
        if key not in stamps and len(stamps) >= KEYS:
            raise InvalidMessage(
                "too_many_keys", f"the state already has {KEYS} keys, and {key!r} would be a new one"
            )
        if stamp > stamps.get(key, -1):
            values[key], stamps[key] = value, stamp
    return ReportedState(values=values, stamps=stamps)


def changes(old: ReportedState, new: ReportedState) -> list[Change]:
    """Return the changes to report: without measured values, and without counters and times of endpoint health."""
    return documents.differences(_without_volatile(old.values), _without_volatile(new.values))


def _without_volatile(values: dict[str, Any]) -> dict[str, Any]:
    stable = {key: value for key, value in values.items() if key not in VOLATILE_KEYS}
    health = values.get("endpoints_health")
    if isinstance(health, dict):
        stable["endpoints_health"] = {
            name: {key: facts[key] for key in HEALTH if key in facts}
            for name, facts in health.items()
            if isinstance(facts, dict)
        }
    return stable


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _uuid(key: object) -> UUID | None:
    try:
        return UUID(key) if isinstance(key, str) and len(key) == 36 else None
    except ValueError:
        return None
