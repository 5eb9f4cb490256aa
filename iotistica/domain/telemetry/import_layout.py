"""Understands the columns of an imported table: which is the time, which are values, and what the rest is."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from iotistica.domain.telemetry import import_values
from iotistica.domain.telemetry.import_values import DateOrder, Decimals
from iotistica.errors import InvalidMessage

Shape = Literal["long", "wide", "influx"]
"""A row is one reading; a row is a reading of each metric; or one of the tables of InfluxDB's annotated CSV."""

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "time": (
        *("time", "timestamp", "bucket", "date", "datetime", "date_time", "time_stamp", "ts", "_time"),
        *("last_changed", "last_updated", "zeit", "zeitstempel", "datum", "recorded_at", "measured_at"),
    ),
    "metric_name": ("metric_name",),
    "metric": (
        *("metric", "name", "_field", "entity_id", "key", "series", "parameter", "variable", "tag", "tagname"),
        *("point", "signal", "sensor"),
    ),
    "value": ("value", "_value", "state", "wert", "val"),
    "quality": ("quality",),
    "unit": ("unit", "units", "unit_of_measurement", "einheit"),
    "protocol": ("protocol",),
    "device_name": ("device_name", "devicename", "device", "gerät", "entity_name", "asset", "node", "host"),
    "device_uuid": ("device_uuid",),
    "endpoint_uuid": ("endpoint_uuid",),
    "anomaly_score": ("anomaly_score",),
    "anomaly_threshold": ("anomaly_threshold",),
    "extra": ("extra",),
}
"""The fields of a reading, and the names that their columns can have; earlier names win."""
FIELDS: Final = tuple(ALIASES)
_PLAIN: Final = frozenset(("agent_uuid", "tags", "result", "table", "_start", "_stop"))
"""Columns of known exports that say nothing about a reading."""
_INFLUX: Final = frozenset(("_time", "_value", "_field", "_measurement"))
_UNIT: Final = re.compile(r"([^()\[\]]+)[(\[]([^()\[\]]{1,16})[)\]]")
_CLOCKS: Final = ("time", "uhrzeit", "zeit", "clock", "time_of_day", "hour")
IGNORE: Final = "ignore"


class SeriesColumn(msgspec.Struct, frozen=True):
    """A column whose cells are the values of one metric."""

    column: str
    metric: str
    unit: str | None = None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of a table become readings; `columns` holds the column of each field that has one."""

    shape: Shape
    columns: dict[str, str]
    series: tuple[SeriesColumn, ...] = ()
    tags: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    clock: str | None = None
    """The column of the time of day, where the column of the time has only dates."""
    decimals: dict[str, Decimals]
    """The decimal mark of each column of values."""
    date_order: DateOrder | None = None


def understand(
    header: Sequence[str],
    samples: Sequence[Mapping[str, Any]],
    *,
    mapped: Mapping[str, str],
    date_order: DateOrder | None = None,
) -> Layout:
    """Return the layout of a table with these columns and first rows.

    `mapped` overrules what a column means: a field, `metric:NAME` for the values of a metric, or `ignore`. Raises
    `InvalidMessage` if the time or every value is missing.
    """
    columns, series, ignored = _columns(header, mapped)
    shape: Shape = "wide" if series else "long"
    tags: tuple[str, ...] = ()
    if "_measurement" in header and set(header) >= _INFLUX:
        shape, tags = "influx", tuple(c for c in header if c and c not in _INFLUX | _PLAIN and c not in mapped)
        columns = {"time": "_time", "value": "_value", "metric": "_field"}
        series, ignored = [], [c for c in header if c in _PLAIN]
    elif not series and "value" not in columns:
        shape = "wide"
        series = [_series(c) for c in header if c and c not in columns.values() and c not in ignored]
        if "metric" in columns:  # such a column names what the values belong to
            named = columns.pop("metric")
            if "device_name" in columns:
                tags = (named,)
            columns.setdefault("device_name", named)
    if "time" not in columns:
        raise InvalidMessage("no_column", _missing("time", header))
    if shape == "wide" and not series:
        raise InvalidMessage("no_column", _missing("value", header))
    if shape == "long" and "metric" not in columns and "metric_name" not in columns:
        raise InvalidMessage("no_column", _missing("metric", header))
    clock = _clock(columns, header, samples, mapped)
    series = [one for one in series if one.column not in (clock, columns["time"])]
    values = [columns["value"]] if shape != "wide" else [one.column for one in series]
    times = [cell for row in samples if isinstance(cell := row.get(columns["time"]), str)]
    return Layout(
        shape=shape,
        columns=columns,
        series=tuple(series),
        tags=tags,
        ignored=tuple(ignored),
        clock=clock,
        decimals={column: _decimals(column, samples) for column in values},
        date_order=date_order or import_values.order_of(times),
    )


def _clock(
    columns: dict[str, str], header: Sequence[str], samples: Sequence[Mapping[str, Any]], mapped: Mapping[str, str]
) -> str | None:
    """Return the column of the time of day, if date and time stand apart; the date is the time column then."""
    dates = [c for c in header if c not in mapped and _all(import_values.is_bare_date, c, samples)]
    clocks = [c for c in header if _plain(c) in _CLOCKS and _all(import_values.is_clock, c, samples)]
    if len(dates) != 1 or len(clocks) != 1:
        return None
    columns["time"] = dates[0]
    return clocks[0]


def _all(test: Callable[[str], bool], column: str, samples: Sequence[Mapping[str, Any]]) -> bool:
    cells = [cell for row in samples if (cell := row.get(column))]
    return bool(cells) and all(isinstance(cell, str) and test(cell) for cell in cells)


def _decimals(column: str, samples: Sequence[Mapping[str, Any]]) -> Decimals:
    texts = [cell for row in samples if isinstance(cell := row.get(column), str)]
    return import_values.decimals_of((import_values.split_unit(text) or (text,))[0] for text in texts)


def _columns(
    header: Sequence[str], mapped: Mapping[str, str]
) -> tuple[dict[str, str], list[SeriesColumn], list[str]]:
    unknown = [column for column in mapped if column not in header]
    if unknown:
        raise InvalidMessage("no_column", f"{unknown[0]!r} of --map; {_listed(header)}")
    columns = {field: column for column, field in mapped.items() if field in ALIASES}
    series = [_series(c, field.partition(":")[2]) for c, field in mapped.items() if field.startswith("metric:")]
    ignored = [column for column, field in mapped.items() if field == IGNORE]
    free = {_plain(column): column for column in reversed(header) if column not in mapped}
    ignored += [column for name, column in free.items() if name in _PLAIN]
    for field, aliases in ALIASES.items():
        for alias in aliases:
            if field not in columns and alias in free:
                columns[field] = free[alias]
    return columns, series, ignored


def _series(column: str, metric: str = "") -> SeriesColumn:
    match = _UNIT.fullmatch(column.strip())
    name = match[1].strip() if match else column.strip()
    return SeriesColumn(column, metric or name or column.strip(), match[2] if match and name else None)


def _plain(column: str) -> str:
    """Return the name of a column without case, and with `_` for blanks and dashes."""
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def _missing(field: str, header: Sequence[str]) -> str:
    return f"{field!r}; {_listed(header)}. Say which it is with --map COLUMN={field}"


def _listed(header: Sequence[str]) -> str:
    return f"its columns are {', '.join(column[:40] for column in header[:20])}"
