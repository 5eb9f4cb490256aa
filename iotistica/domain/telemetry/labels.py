"""Names and labels of readings: what series a reading belongs to, its unit, protocol and ids."""

import re
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from iotistica.domain.names import clean_name
from iotistica.errors import InvalidMessage

NAME_CAP: Final = 512  # bytes of UTF-8
LABEL_CAP: Final = 64  # bytes of UTF-8, for units and protocols
_CANONICAL: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def series_name(metric: Any, device: Any) -> tuple[str, str, str | None]:
    """Return the name of the series of a reading, its metric, and its device or None.

    The name is the device, a dot and the metric, or the metric alone; dots in the device become `_`. Raises
    `InvalidMessage` if there is no usable metric.
    """
    # Not cached: a large fleet has more series than a cache holds, and each name comes once a poll, in turn.
    metric = _name(metric)
    if not metric:
        raise InvalidMessage("no_metric")
    device = None if device is None else _name(device) or None
    metric_name = metric if device is None else f"{device.replace('.', '_')}.{metric}"
    if len(metric_name) > NAME_CAP or (len(metric_name) * 4 > NAME_CAP and len(metric_name.encode()) > NAME_CAP):
        raise InvalidMessage("name_too_long")
    return metric_name, metric, device


def _name(value: Any) -> str:
    """Return a metric or device name, or an empty string for no name; raises `InvalidMessage`."""
    if type(value) is str and len(value) <= NAME_CAP and value.isascii() and value.isprintable():
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidMessage("bad_name")
    if isinstance(value, str) and len(value) > NAME_CAP:  # check before the text is processed
        raise InvalidMessage("name_too_long")
    text = clean_name(value if isinstance(value, str) else str(value)[: NAME_CAP + 1])
    if "\ufffd" in text:
        raise InvalidMessage("bad_utf8")
    return text


def clean_label(value: Any) -> str | None:
    """Return a unit or protocol, cut to 64 bytes, or None for no usable text."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _label(value[:LABEL_CAP])
    return _label(str(value)[:LABEL_CAP]) if isinstance(value, (int, float)) else None


@lru_cache(maxsize=8192)  # a fleet has few units and protocols
def _label(text: str) -> str | None:
    text = clean_name(text)
    if len(text) * 4 > LABEL_CAP:
        text = text.encode()[:LABEL_CAP].decode("utf-8", "ignore")
    return text or None


def clean_uuid(value: Any) -> str | None:
    """Return a UUID in canonical form, or None if the value is not a valid UUID."""
    if not isinstance(value, str) or len(value) > 45:
        return None
    if _CANONICAL.fullmatch(value):
        return value
    try:
        return str(UUID(value))
    except ValueError:
        return None
