"""A reading as agents send it, as the platform stores it, and the rules between the two."""

import math
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct, field

from iotistica.domain import timestamps
from iotistica.domain.documents import clean, strip_nul
from iotistica.domain.telemetry.quality import quality_of
from iotistica.errors import InvalidMessage

NAME_CAP: Final = 512  # bytes of UTF-8
LABEL_CAP: Final = 64  # bytes of UTF-8, for units and protocols
EXTRA_CAP: Final = 8 << 10  # bytes of JSON
TEXT_CAP: Final = 4 << 10  # characters of a text value
SKEW: Final = 5_000_000  # us that a time can be in the future before its reading becomes `uncertain`
FUTURE: Final = 24 * 3600 * 1_000_000  # us in the future above which a reading is rejected


class Reading(Struct, gc=False):
    """One measured value; `time` is in us since the epoch. Not frozen, for speed: 100,000 are created a second."""

    time: int
    metric_name: str
    value: float | None
    quality: str
    unit: str | None
    protocol: str
    extra: dict[str, Any] | None
    anomaly_score: float | None
    anomaly_threshold: float | None
    device_name: str | None
    device_uuid: str | None
    endpoint_uuid: str | None
    metric: str


class RawReading(Struct, gc=False):
    """A reading as agents send it; all other fields are skipped while decoding."""

    timestamp: Any = None
    time: Any = None
    metric: Any = None
    node_name: Any = field(default=None, name="nodeName")
    name: Any = None
    value: Any = None
    unit: Any = None
    quality: Any = None
    quality_code: Any = field(default=None, name="qualityCode")
    protocol: Any = None
    device_name: Any = field(default=None, name="deviceName")
    device_name_2: Any = field(default=None, name="device_name")
    device_uuid: Any = None
    endpoint_uuid: Any = None
    error: Any = None
    anomaly_score: Any = None
    anomaly_threshold: Any = None
    baseline_samples: Any = None
    detection_methods: Any = None
    trend: Any = None
    predicted_next: Any = None
    forecast_confidence: Any = None
    device_state: Any = None


DETECTION: Final = (
    "baseline_samples",
    "detection_methods",
    "trend",
    "predicted_next",
    "forecast_confidence",
    "device_state",
)


class PayloadContext(Struct, frozen=True, kw_only=True):
    """What all readings of a payload share: the default protocol, and times in us since the epoch.

    `received` is the time of arrival; readings before `oldest` are rejected.
    """

    protocol: str
    received: int
    oldest: int


def normalise(point: RawReading, stamp: Any, context: PayloadContext) -> Reading:
    """Convert a reading to its stored form; raises `InvalidMessage` with the reason for its rejection.

    If the reading has no time, `stamp` (of its message or envelope) is used, or else the time of arrival.
    """
    time: int | None = None
    if point.timestamp is not None:
        time = timestamps.optional_us(point.timestamp)
    if time is None and point.time is not None:
        time = timestamps.optional_us(point.time)
    if time is None and stamp is not None:
        time = timestamps.optional_us(stamp)
    if time is None:
        time = context.received
    if time < context.oldest:
        raise InvalidMessage("too_old")
    if time > context.received + FUTURE:
        raise InvalidMessage("future")

    metric = _name(point.metric or point.node_name or point.name)
    if not metric:
        raise InvalidMessage("no_metric")
    device = _name(point.device_name or point.device_name_2) or None
    metric_name = f"{device.replace('.', '_')}.{metric}" if device else metric
    if len(metric_name) > NAME_CAP or len(metric_name.encode()) > NAME_CAP:
        raise InvalidMessage("name_too_long")

    extra: dict[str, Any] | None = None
    value = point.value
    kind = type(value)
    quality = quality_of(point.quality)
    if kind is float and math.isfinite(value):
        number: float | None = value
    elif kind is bool:
        number = float(value)
    elif value is None:
        number = None
        if quality is None:
            quality = "bad" if point.error is not None else "unknown"
    else:
        number, extra = _convert_value(value)
        if extra is not None and "raw" in extra:
            quality = "bad"
    if time > context.received + SKEW and quality != "bad":
        quality = "uncertain"

    if (
        point.quality_code is not None
        or point.error is not None
        or point.anomaly_score is not None
        or any(getattr(point, key) is not None for key in DETECTION)
    ):
        extra = _add_details(extra or {}, point)
    if extra is not None:
        extra = bounded(extra)

    return Reading(
        time,
        metric_name,
        number,
        quality or "good",
        clean_label(point.unit),
        clean_label(point.protocol) or context.protocol,
        extra,
        _score(point.anomaly_score),
        _score(point.anomaly_threshold),
        device,
        _uuid(point.device_uuid),
        _uuid(point.endpoint_uuid),
        metric,
    )


def _convert_value(value: Any) -> tuple[float | None, dict[str, Any] | None]:
    """Return the number and the `extra` fields for a value that is not a finite float, a boolean or null."""
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return None, {"raw": f"an integer of {len(str(value)) if abs(value) < 10**4000 else 'many'} digits"}
        return (number, None) if math.isfinite(number) else (None, {"raw": repr(number)})
    if isinstance(value, str):
        text = strip_nul(value[:TEXT_CAP])
        try:
            number = float(text) if len(text) <= 64 and "_" not in text else math.nan
        except ValueError:
            return None, {"text": text}
        if math.isfinite(number):
            return number, None
        return None, {"raw": text[:64]} if len(text) <= 64 and "_" not in text else {"text": text}
    if isinstance(value, (dict, list)):
        return None, {"raw": value}
    raise InvalidMessage("bad_value", type(value).__name__)


def _add_details(extra: dict[str, Any], point: RawReading) -> dict[str, Any]:
    if point.quality_code is not None:
        extra["qualityCode"] = point.quality_code
    if point.error is not None:
        extra["error"] = point.error
    for key in DETECTION:
        if (detail := getattr(point, key)) is not None:
            extra[key] = detail
    return extra


def bounded(extra: dict[str, Any]) -> dict[str, Any]:
    """Return `extra` as JSON (no NUL, no infinities) of at most `EXTRA_CAP` bytes; its largest parts go first."""
    kept = {key: clean(value, deepest=8) for key, value in extra.items()}
    while kept and len(msgspec.json.encode(kept)) > EXTRA_CAP:
        largest = max(kept, key=lambda key: len(msgspec.json.encode(kept[key])))
        del kept[largest]
        kept["truncated"] = True
    return kept


def _name(value: Any) -> str:
    """Return a metric or device name, or an empty string for no name; raises `InvalidMessage`."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidMessage("bad_name")
    if isinstance(value, str) and len(value) > NAME_CAP:  # check before the text is processed
        raise InvalidMessage("name_too_long")
    text = strip_nul(value if isinstance(value, str) else str(value)[: NAME_CAP + 1]).strip()
    if "\ufffd" in text:
        raise InvalidMessage("bad_utf8")
    return text


def clean_label(value: Any) -> str | None:
    """Return a unit or protocol, cut to 64 bytes, or None for no usable text."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        value = str(value)[:LABEL_CAP] if isinstance(value, (int, float)) else ""
    text = strip_nul(value[:LABEL_CAP])
    if len(text) * 4 > LABEL_CAP:
        text = text.encode()[:LABEL_CAP].decode("utf-8", "ignore")
    return text or None


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _uuid(value: Any) -> str | None:
    """Return a UUID in canonical form, or None if the value is not a valid UUID."""
    if not isinstance(value, str):
        return None
    try:
        return str(UUID(value)) if len(value) <= 45 else None
    except ValueError:
        return None
