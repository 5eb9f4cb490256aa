"""The shapes in which agents send readings, taken apart into single readings."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from iotistica.domain import timestamps
from iotistica.domain.names import clean_name

_NOT_A_METRIC: Final = frozenset(("timestamp", "time", "ts", "protocol", "deviceName", "device_name", "msgId"))
_EXPECTED: Final = (
    "expected: {messages: [{readings: […]}]}, {readings: […]}, a reading {metric, value}, a list of readings, any"
    " of these under data, {timestamp, node, tags: […]}, or an object of names and numbers"
)
_SHOWN: Final = 10  # keys of an unknown object that a dead letter names


class Item(Struct):
    """A reading or a heartbeat found in a payload, not validated yet."""

    reading: Any = None
    timestamp: Any = None
    protocol: Any = None
    heartbeat: bool = False


def items(root: object, depth: int = 0) -> Iterator[Item]:
    """Yield the readings in a payload of any accepted shape one by one, so that a bad one cannot affect others."""
    if isinstance(root, list):
        for member in root:
            if isinstance(member, dict) and is_bare(member):
                yield from _bare(member)
            else:
                yield Item(member)
        return
    if not isinstance(root, dict):
        return
    stamp, protocol = root.get("timestamp"), root.get("protocol")
    if has_readings(root):
        for message in _list(root, "messages"):
            if not isinstance(message, dict) or not isinstance(message.get("readings"), list):
                yield Item(message if isinstance(message, dict) and "value" in message else None, stamp, protocol)
                continue
            for reading in message["readings"]:
                yield Item(reading, first_time(message.get("timestamp"), stamp), protocol)
        for reading in _list(root, "readings"):
            yield Item(reading, stamp, protocol)
    elif isinstance(root.get("tags"), list):
        for tag in root["tags"]:
            reading = {"deviceName": root.get("node"), **tag} if isinstance(tag, dict) else tag
            yield Item(reading, stamp, protocol)
    elif isinstance(root.get("data"), (dict, list)) and depth == 0:
        for item in items(root["data"], depth + 1):
            item.timestamp = first_time(item.timestamp, stamp)
            item.protocol = protocol if item.protocol is None else item.protocol
            yield item
    elif "endpoint" in root and "state" in root and "stats" in root:
        yield Item(heartbeat=True)
    elif is_bare(root):
        yield from _bare(root)
    elif "value" in root or "error" in root:
        yield Item(root)


def has_readings(root: object) -> bool:
    """Whether a payload has the list `messages` or `readings`."""
    return isinstance(root, dict) and (
        isinstance(root.get("messages"), list) or isinstance(root.get("readings"), list)
    )


def is_known(root: object) -> bool:
    """Whether a payload is valid even without readings: its lists of readings are empty."""
    return (
        root == [] or has_readings(root) or (isinstance(root, dict) and [] in (root.get("tags"), root.get("data")))
    )


def first_time(*stamps: Any) -> Any:
    """Return the first timestamp that is not null or blank; None if there is none."""
    return next((stamp for stamp in stamps if not timestamps.is_absent(stamp)), None)


def is_bare(root: dict[Any, Any]) -> bool:
    """Whether an object is one of names and values, at least one of them a number, and not a reading."""
    if "value" in root or "metric" in root or "nodeName" in root or ("name" in root and "error" in root):
        return False
    values = [value for key, value in root.items() if key not in _NOT_A_METRIC]
    return any(map(_is_number, values)) and not any(isinstance(value, (dict, list, bytes)) for value in values)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return value.isascii() and float(value) is not None
        except ValueError:
            return False
    return isinstance(value, (bool, int, float))


def _bare(root: dict[Any, Any]) -> Iterator[Item]:
    """Yield each value of an object of names and values as a reading; null is no reading."""
    device = root.get("deviceName", root.get("device_name"))
    stamp = first_time(root.get("timestamp"), root.get("time"), root.get("ts"))
    for name, value in root.items():
        if name not in _NOT_A_METRIC and value is not None:
            reading = {"metric": name, "value": value, "deviceName": device}
            yield Item(reading, stamp, root.get("protocol"))


def describe(root: object) -> str:
    """Return what a payload of an unknown shape is, and what would have been understood."""
    if isinstance(root, dict):
        keys = [clean_name(str(key)[:40]) for key in list(root)[:_SHOWN]]
        more = f" and {len(root) - _SHOWN} more" if len(root) > _SHOWN else ""
        came = f"an object with the keys {', '.join(keys)}{more}" if keys else "an empty object"
    elif isinstance(root, list):
        came = f"a list of {len(root)} values"
    else:
        came = "null" if root is None else f"a single value ({type(root).__name__})"
    return f"came {came}; {_EXPECTED}"


def _list(root: dict[Any, Any], key: str) -> list[Any]:
    """Return the list under a key, or an empty list if there is none."""
    members = root.get(key)
    return members if isinstance(members, list) else []
