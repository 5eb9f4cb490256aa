"""Converts rows of exported files, and of files from other systems, to readings."""

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
"""The platform's column names, and the names that each can have in a file; earlier names win."""
NEEDED: Final = ("time", "value")
TRUTHS: Final = {"true": True, "false": False}


def columns(header: list[str]) -> dict[str, str]:
    """Return the columns of a file by the platform's names; raises `InvalidMessage` if a needed one is missing."""
    by_name = {name: alias for name, aliases in NAMES.items() for alias in reversed(aliases) if alias in header}
    missing = [name for name in NEEDED if name not in by_name]
    if "metric" not in by_name and "metric_name" not in by_name:
        missing.append("metric")
    if missing:
        raise InvalidMessage("no_column", f"{missing[0]!r}; its columns are {', '.join(header[:20])}")
    return by_name


def reading_of(row: Mapping[str, Any], context: PayloadContext) -> Reading:
    """Convert a row, whose cells have the platform's column names, to a reading; empty text counts as no value.

    Raises `InvalidMessage` with the reason for the rejection.
    """
    cells = {name: value for name, value in row.items() if value not in (None, "")}
    extra = _extra(cells.pop("extra", None))
    if "time" not in cells:
        raise InvalidMessage("bad_time", "the row has no time")
    if isinstance(text := cells.get("value"), str):  # a text file has no other way to write a boolean
        cells["value"] = TRUTHS.get(text.strip().lower(), text)
    metric_name = cells.pop("metric_name", None)
    if "metric" not in cells:  # the metric name already contains the device name
        cells.pop("device_name", None)
        cells["metric"] = metric_name
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
        raise InvalidMessage("bad_value", "an anomaly score is not a number") from None
