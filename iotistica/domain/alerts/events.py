"""Events that agents send on `events/{type}`, above all anomalies that they detect themselves."""

import math
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from iotistica.domain import timestamps
from iotistica.domain.names import clean_name
from iotistica.domain.telemetry import labels
from iotistica.errors import InvalidMessage

Severity = Literal["info", "warning", "critical"]

SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
"""From the least to the most severe."""
_SEVERITY_BY_WORD: Final[dict[str, Severity]] = {
    **{severity: severity for severity in SEVERITIES},
    **dict.fromkeys(("debug", "notice", "low", "normal", "ok"), "info"),
    **dict.fromkeys(("warn", "minor", "medium", "moderate"), "warning"),
    **dict.fromkeys(("error", "err", "major", "high", "fatal", "alert", "emergency", "alarm"), "critical"),
}
ANOMALY: Final = "anomaly"
TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an event's type can be: the last level of the topic."""
ID_LENGTH: Final = 128  # characters of a message id and of a fingerprint
TEXT_LENGTH: Final = 500  # characters of texts that are shown
AHEAD: Final = timedelta(hours=24)  # that the time of an event can be in the future
# The public agent writes `<agent>_<endpoint>_<metric>`, and earlier versions `<agent>_<metric>`.
STAMPS: Final = ("timestampMs", "timestamp", "time")
_UUID: Final = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_PREFIXED: Final = re.compile(rf"{_UUID}_(?:(?P<endpoint>{_UUID})_)?(?P<metric>.+)", re.DOTALL)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an agent; an anomaly also has a metric and a fingerprint."""

    type: str
    message_id: str
    """Identifies the event: one that is sent again has the same."""
    time: datetime
    severity: Severity
    text: str | None
    """Why it is as severe as it is, in the agent's words."""
    metric_name: str | None
    """The name of the series, as in readings."""
    device_name: str | None
    device_uuid: str | None
    fingerprint: str | None
    """Events of one cause have the same."""
    window_start: datetime | None
    window_end: datetime | None
    value: float | None
    score: float | None
    """How unusual the value is, 0 to 1."""
    confidence: float | None
    """How sure the agent is, 0 to 1."""
    expected_low: float | None
    expected_high: float | None
    baseline: dict[str, Any] | None
    cooldown_seconds: float | None
    is_suppressed: bool
    """Whether the agent itself would tell nobody of it, for example during its cooldown."""
    content: dict[str, Any]
    """The fields that have no place above, as sent."""


_READ: Final = frozenset(
    (
        *("msgId", "agentUuid", "timestamp", "timestampMs", "time", "severity", "severityReason", "message"),
        *("metric", "deviceName", "deviceUuid", "fingerprint", "windowStartMs", "windowEndMs", "observedValue"),
        *("anomalyScore", "confidence", "expectedRange", "baseline", "cooldownSec", "suppressed"),
    )
)


def parse(type_: str, content: Any, received: datetime, payload: bytes) -> Event:
    """Return the event in a decoded message; raises `InvalidMessage` with the field at fault.

    Times that are absent are the time of arrival, and a message without an id is identified by its bytes.
    """
    if not TYPE.fullmatch(type_):
        raise _invalid("type", "must have letters, digits, dots, dashes and underscores, at most 64")
    if not isinstance(content, dict):
        raise InvalidMessage("unknown_shape", "a message on events/… must be an object")
    stamp = next((content[key] for key in STAMPS if not timestamps.is_absent(content.get(key))), None)
    time = received if stamp is None else _time("timestampMs", stamp)
    if time > received + AHEAD:
        raise InvalidMessage("future")
    metric_name, device, device_uuid = _series(content)
    low, high = _range(content.get("expectedRange"))
    baseline = content.get("baseline")
    if baseline is not None and not isinstance(baseline, dict):
        raise _invalid("baseline", "must be an object")
    event = Event(
        type=type_,
        message_id=_text(content, "msgId", ID_LENGTH) or sha256(payload).hexdigest()[:32],
        time=time,
        severity=_severity(content.get("severity"), default="warning" if type_ == ANOMALY else "info"),
        text=_text(content, "severityReason", TEXT_LENGTH) or _text(content, "message", TEXT_LENGTH),
        metric_name=metric_name,
        device_name=device,
        device_uuid=device_uuid,
        fingerprint=_text(content, "fingerprint", ID_LENGTH),
        window_start=_optional_time(content, "windowStartMs"),
        window_end=_optional_time(content, "windowEndMs"),
        value=_number(content, "observedValue"),
        score=_share(content, "anomalyScore"),
        confidence=_share(content, "confidence"),
        expected_low=low,
        expected_high=high,
        baseline=baseline,
        cooldown_seconds=_number(content, "cooldownSec"),
        is_suppressed=_flag(content, "suppressed"),
        content={key: value for key, value in content.items() if key not in _READ},
    )
    if type_ == ANOMALY:
        for name, value in (("timestampMs", stamp), ("metric", metric_name), ("fingerprint", event.fingerprint)):
            if value is None:
                raise _invalid(name, "is missing")
    return event


def _invalid(path: str, said: str) -> InvalidMessage:
    return InvalidMessage("invalid_event", f"{path}: {said}")


def _series(content: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Return the name of the series, the device's name and the device's uuid."""
    metric, uuid = content.get("metric"), labels.clean_uuid(content.get("deviceUuid"))
    if metric is None:
        return None, _text(content, "deviceName", labels.NAME_CAP), uuid
    if isinstance(metric, str) and (match := _PREFIXED.fullmatch(metric)):
        metric, uuid = match["metric"], uuid or labels.clean_uuid(match["endpoint"])
    try:
        name, _, device = labels.series_name(metric, content.get("deviceName"))
    except InvalidMessage as exc:
        raise _invalid("metric", f"cannot be the name of a metric ({exc})") from exc
    return name, device, uuid


def _severity(word: Any, *, default: Severity) -> Severity:
    if word is None:
        return default
    known = _SEVERITY_BY_WORD.get(word.strip().lower()) if isinstance(word, str) else None
    if known is None:
        raise _invalid("severity", f"must be one of {', '.join(SEVERITIES)}")
    return known


def _text(content: dict[str, Any], name: str, most: int) -> str | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise _invalid(name, "must be a text")
    return clean_name(str(value)[:most]) or None


def _number(content: dict[str, Any], name: str) -> float | None:
    value = content.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _invalid(name, "must be a number")
    try:
        number = float(value)
    except OverflowError:
        raise _invalid(name, "must be a number below 1e308") from None
    return number if math.isfinite(number) else None


def _share(content: dict[str, Any], name: str) -> float | None:
    value = _number(content, name)
    if value is not None and not 0 <= value <= 1:
        raise _invalid(name, "must be between 0 and 1")
    return value


def _flag(content: dict[str, Any], name: str) -> bool:
    value = content.get(name, False)
    if value is not None and not isinstance(value, bool):
        raise _invalid(name, "must be true or false")
    return bool(value)


def _range(value: Any) -> tuple[float | None, float | None]:
    """Return both bounds of the range that was expected; each can be absent."""
    if value is None:
        return None, None
    bounds = dict(zip(("low", "high"), value, strict=False)) if isinstance(value, list) else value
    if not isinstance(bounds, dict) or (isinstance(value, list) and len(value) != 2):
        raise _invalid("expectedRange", "must be a list of two numbers")
    names = (("low", "min"), ("high", "max"))
    first, second = ({"expectedRange": next((bounds[n] for n in pair if n in bounds), None)} for pair in names)
    return _number(first, "expectedRange"), _number(second, "expectedRange")


def _optional_time(content: dict[str, Any], name: str) -> datetime | None:
    return None if timestamps.is_absent(content.get(name)) else _time(name, content[name])


def _time(name: str, stamp: Any) -> datetime:
    try:
        return datetime.fromtimestamp(timestamps.parse_us(stamp) / 1e6, UTC)
    except (InvalidMessage, OverflowError, ValueError, OSError) as exc:
        raise _invalid(name, "is not a time") from exc
