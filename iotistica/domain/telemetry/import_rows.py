"""Rows of exported or foreign history, as readings."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from iotistica.domain.telemetry.readings import PayloadContext, RawReading, Reading, bounded, normalise
from iotistica.errors import InvalidMessage

NAMES: Final = {
    "time": ("time", "timestamp", "bucket", "date"),
    "metric": ("metric", "name"),
    "metric_name": ("metric_name",),
    "value": ("value",),
    "quality": ("quality",),
    "unit": ("unit",),
    "protocol": ("protocol",),
    "device_name": ("device_name", "deviceName", "device"),
    "device_uuid": ("device_uuid",),
    "endpoint_uuid": ("endpoint_uuid",),
    "anomaly_score": ("anomaly_score",),
    "anomaly_threshold": ("anomaly_threshold",),
    "extra": ("extra",),
}
"""Our names and what they may be called in a file."""
NEEDED: Final = ("time", "value")
TRUTHS: Final = {"true": True, "false": False}


def columns(header: list[str]) -> dict[str, str]:
    """By our names, the columns of a file; raises `InvalidMessage` if one that is needed is missing."""
    found = {ours: name for ours, theirs in NAMES.items() for name in reversed(theirs) if name in header}
    missing = [name for name in NEEDED if name not in found]
    if "metric" not in found and "metric_name" not in found:
        missing.append("metric")
    if missing:
        raise InvalidMessage("no_column", f"{missing[0]!r}; there are {', '.join(header[:20])}")
    return found


def reading_of(row: Mapping[str, Any], context: PayloadContext) -> Reading:
    """One row by our names; empty text is nothing. Raises `InvalidMessage` with the reason for its rejection."""
    cells = {name: value for name, value in row.items() if value not in (None, "")}
    extra = _extra(cells.pop("extra", None))
    if "time" not in cells:
        raise InvalidMessage("bad_time", "none")
    if isinstance(text := cells.get("value"), str):  # a file of text has no other way to say it
        cells["value"] = TRUTHS.get(text.strip().lower(), text)
    whole = cells.pop("metric_name", None)
    if "metric" not in cells:  # its name already holds the device's
        cells.pop("device_name", None)
        cells["metric"] = whole
    for score in ("anomaly_score", "anomaly_threshold"):
        if isinstance(cells.get(score), str):
            cells[score] = _number(cells[score])
    reading = normalise(RawReading(**cells), None, context)
    if extra:
        reading.extra = bounded((reading.extra or {}) | extra)
    return reading


def _extra(text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, TypeError):
        raise InvalidMessage("bad_extra", "not a JSON object") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidMessage("bad_value", "anomaly score") from None
