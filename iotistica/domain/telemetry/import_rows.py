"""Converts rows of imported tables to readings."""

from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from iotistica.domain.telemetry import import_values
from iotistica.domain.telemetry.import_layout import Layout
from iotistica.domain.telemetry.readings import PayloadContext, RawReading, Reading, bounded, normalise
from iotistica.errors import InvalidMessage

Row = Mapping[str, Any]


def raw_rows(row: Row, layout: Layout, zone: ZoneInfo | None) -> Iterator[dict[str, Any]]:
    """Yield the readings in a row as the fields of a `RawReading`; a wide row has one for each cell with a value.

    Raises `InvalidMessage` if the row has no time.
    """
    cells = {field: row.get(column) for field, column in layout.columns.items()}
    cells = {field: cell for field, cell in cells.items() if cell not in (None, "")}
    stamp = cells.pop("time", None)
    if stamp is None or (isinstance(stamp, str) and not stamp.strip()):
        raise InvalidMessage("bad_time", "the row has no time")
    if layout.clock is not None:
        stamp = f"{stamp} {row.get(layout.clock) or ''}".strip()
    cells["time"] = import_values.time_of(stamp, layout.date_order, zone)
    if "device_name" in layout.columns:
        cells.setdefault("device_name", None)  # an empty cell says that there is no device
    if layout.shape == "wide":
        if layout.tags:
            names = [cells.get("device_name"), *(row.get(tag) for tag in layout.tags)]
            cells["device_name"] = "/".join(str(name) for name in names if name not in (None, "")) or None
        for series in layout.series:
            unit, cell = series.unit, row.get(series.column)
            if isinstance(cell, str) and (parts := import_values.split_unit(cell)):
                cell, unit = parts[0], unit or parts[1]
            value = import_values.value_of(cell, layout.decimals[series.column])
            if value is not None:
                yield {**cells, "metric": series.metric, "value": value, **({"unit": unit} if unit else {})}
        return
    if layout.shape == "influx":
        tags = [row.get("_measurement"), *(row.get(tag) for tag in layout.tags)]
        cells["device_name"] = "/".join(str(tag) for tag in tags if tag not in (None, ""))
    cells["value"] = import_values.value_of(cells.get("value"), layout.decimals[layout.columns["value"]])
    yield cells


def reading_of(cells: Mapping[str, Any], context: PayloadContext) -> Reading:
    """Convert the fields of one reading; raises `InvalidMessage` with the reason for its rejection.

    A name such as `boiler-1.temperature` is that of a device and a metric, if no column names the device.
    """
    fields = dict(cells)
    extra = _extra(fields.pop("extra", None))
    metric_name = fields.pop("metric_name", None)
    if "metric" not in fields:  # the metric name already contains the device name
        fields.pop("device_name", None)
        fields["metric"] = metric_name
    name = fields["metric"]
    if "device_name" not in fields and isinstance(name, str) and metric_name in (None, name):
        device, dot, metric = name.strip().partition(".")
        if dot and device and metric:
            fields |= {"device_name": device, "metric": metric}
    for score in ("anomaly_score", "anomaly_threshold"):
        if isinstance(fields.get(score), str):
            fields[score] = _number(fields[score])
    reading = normalise(RawReading(**fields), None, context)
    if extra:
        reading.extra = bounded((reading.extra or {}) | extra)
    return reading


def _extra(text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, TypeError, RecursionError):
        raise InvalidMessage("bad_extra", "not a JSON object") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidMessage("bad_value", "an anomaly score is not a number") from None
