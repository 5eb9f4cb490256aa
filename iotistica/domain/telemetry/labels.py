"""Names and labels of readings: what series a reading belongs to, its unit, protocol and ids."""

from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain.names import clean_name
from iotistica.errors import InvalidMessage

NAME_CAP: Final = 512  # bytes of UTF-8
LABEL_CAP: Final = 64  # bytes of UTF-8, for units and protocols
_CACHED: Final = 8192  # different ones that are remembered; each reading repeats those of the last poll


class SeriesName(NamedTuple):
    """`metric_name` is the name of a series of an agent: the device, a dot and the metric, or the metric alone."""

    metric_name: str
    metric: str
    device: str | None


def series_name(metric: Any, device: Any) -> SeriesName:
    """Return the name of the series of a reading; raises `InvalidMessage` if it has no usable name."""
    is_short = type(metric) is str and len(metric) <= NAME_CAP
    if is_short and (device is None or (type(device) is str and len(device) <= NAME_CAP)):
        return _cached_name(metric, device)
    return _series_name(metric, device)


def _series_name(sent_metric: Any, sent_device: Any) -> SeriesName:
    metric, device = _name(sent_metric), _name(sent_device) or None
    if not metric:
        raise InvalidMessage("no_metric")
    metric_name = f"{device.replace('.', '_')}.{metric}" if device else metric
    if len(metric_name) > NAME_CAP or len(metric_name.encode()) > NAME_CAP:
        raise InvalidMessage("name_too_long")
    return SeriesName(metric_name, metric, device)


_cached_name = lru_cache(maxsize=_CACHED)(_series_name)


def _name(value: Any) -> str:
    """Return a metric or device name, or an empty string for no name; raises `InvalidMessage`."""
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


@lru_cache(maxsize=_CACHED)
def _label(text: str) -> str | None:
    text = clean_name(text)
    if len(text) * 4 > LABEL_CAP:
        text = text.encode()[:LABEL_CAP].decode("utf-8", "ignore")
    return text or None


def clean_uuid(value: Any) -> str | None:
    """Return a UUID in canonical form, or None if the value is not a valid UUID."""
    return _uuid(value) if isinstance(value, str) and len(value) <= 45 else None


@lru_cache(maxsize=_CACHED)
def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
