"""A reading as agents send it, as the platform stores it, and the rules between the two."""

import math
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from iotistica.domain import exact_numbers, timestamps
from iotistica.domain.documents import clean
from iotistica.domain.telemetry.labels import clean_label, clean_uuid, series_name
from iotistica.domain.telemetry.quality import QUALITIES, is_said_whole, quality_of
from iotistica.errors import InvalidMessage

EXTRA_CAP: Final = 8 << 10  # bytes of JSON
TEXT_CAP: Final = 4 << 10  # characters of a text value
TEXT_BYTES: Final = 8000  # of UTF-8 of a text value, so that it fits into `extra`
NUMBER_CAP: Final = 64  # characters of text that is a number
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

    metric_name, metric, device = series_name(
        point.metric or point.node_name or point.name, point.device_name or point.device_name_2
    )
    extra: dict[str, Any] | None = None
    value = point.value
    kind = type(value)
    sent_quality = point.quality
    quality = QUALITIES.get(sent_quality) if type(sent_quality) is str else None
    is_mapped = quality is None and sent_quality is not None
    if is_mapped:
        quality = quality_of(sent_quality)
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
        if number is None and extra is not None and "raw" in extra:
            quality = "bad"
    if time > context.received + SKEW and quality != "bad":
        quality = "uncertain"

    if (
        point.quality_code is not None
        or point.error is not None
        or point.anomaly_score is not None
        or point.trend is not None
        or point.device_state is not None
        or point.baseline_samples is not None
        or point.detection_methods is not None
        or point.predicted_next is not None
        or point.forecast_confidence is not None
        or is_mapped
    ):
        extra = _add_details(extra or {}, point) or None
    if extra is not None:
        extra = bounded(extra)

    return Reading(
        time,
        metric_name,
        number,
        quality or "good",
        None if point.unit is None else clean_label(point.unit),
        context.protocol if point.protocol is None else clean_label(point.protocol) or context.protocol,
        extra,
        None if point.anomaly_score is None else _score(point.anomaly_score),
        None if point.anomaly_threshold is None else _score(point.anomaly_threshold),
        device,
        None if point.device_uuid is None else clean_uuid(point.device_uuid),
        None if point.endpoint_uuid is None else clean_uuid(point.endpoint_uuid),
        metric,
    )


def _convert_value(value: Any) -> tuple[float | None, dict[str, Any] | None]:
    """Return the number and the `extra` fields for a value that is not a finite float, a boolean or null."""
    if isinstance(value, (int, float)):
        sent = exact_numbers.sent_text(value)
        try:
            number = float(value)
        except OverflowError:
            return None, {"raw": sent}
        if math.isfinite(number):
            return number, None if sent is None else _text("raw", sent)
        return None, _text("raw", sent or repr(number))
    if isinstance(value, str):
        return _convert_text(value)
    if isinstance(value, (dict, list)):
        return None, {"raw": value}
    raise InvalidMessage("bad_value", type(value).__name__)


def _convert_text(text: str) -> tuple[float | None, dict[str, Any] | None]:
    if len(text) > NUMBER_CAP or not text.isascii() or "_" in text:  # Python also reads other digits, and 1_000
        return None, _text("text", text)
    try:
        number = float(text)
    except ValueError:
        return None, _text("text", text)
    if not math.isfinite(number):
        return None, {"raw": text}
    return number, None if exact_numbers.is_given_back(text, number) else {"text": text}


def _text(key: str, text: str) -> dict[str, Any]:
    if len(text) <= TEXT_BYTES // 4:
        return {key: text}
    kept = text[:TEXT_CAP].encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore")
    return {key: text} if len(kept) == len(text) else {key: kept, "truncated": True}


def _add_details(extra: dict[str, Any], point: RawReading) -> dict[str, Any]:
    if point.quality_code is not None:
        extra["qualityCode"] = point.quality_code
    if not is_said_whole(point.quality):
        extra["quality"] = point.quality
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


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
