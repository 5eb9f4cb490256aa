"""Makes messages in the real agent's format, with or without details, in any encoding, optionally with faults."""

import json
import math
import random
import zlib
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

METRICS: Final = (
    ("temperature", "degreesCelsius", 20.0, 5.0),
    ("pressure", "mbar", 1013.0, 12.0),
    ("flow", "m3/h", 42.0, 9.0),
    ("level", "percent", 60.0, 25.0),
    ("current", "A", 8.0, 2.0),
    ("voltage", "V", 400.0, 4.0),
    ("speed", "rpm", 1480.0, 15.0),
    ("vibration", "mm/s", 1.8, 0.7),
    ("power", "kW", 5.5, 1.5),
    ("pump_on", "", 1.0, 0.0),
)
ENCODINGS: Final = ("json", "msgpack", "deflate", "both")
BAD: Final[tuple[dict[str, Any], ...]] = (
    {"timestamp": "1970-01-01T00:00:00Z"},
    {"timestamp": "2100-01-01T00:00:00Z"},
    {"timestamp": "yesterday"},
    {"metric": None},
    {"metric": "m" * 5000},
)


class AgentMessages:
    """Makes the messages of one agent, whose polls read one series after another."""

    def __init__(self, uuid: UUID, *, series: int, readings: int, full: bool, seed: int) -> None:
        self._uuid = uuid
        self._readings = readings
        self._series = series
        self._full = full
        self._random = random.Random(f"{uuid} {seed}")  # noqa: S311 seeded, so that a simulation can be repeated
        self._device_uuid = str(uuid5(NAMESPACE_OID, f"{uuid} device"))
        self._device = f"plc-001-{self._device_uuid[:8]}"
        self._sent = 0
        self._next = 0

    def message(self, now: datetime, *, bad: float = 0.0) -> dict[str, Any]:
        """Return one message; its polls are a millisecond apart, the last one at `now`.

        `bad` is the share of readings, 0 to 1, that get a fault.
        """
        polls = -(-self._readings // self._series)
        left = self._readings
        messages = []
        for poll in range(polls):
            when = _iso(now - timedelta(milliseconds=polls - 1 - poll))
            wanted = min(left, self._series)
            left -= wanted
            messages.append({"timestamp": when, "readings": [self._reading(when, bad) for _ in range(wanted)]})
        self._sent += 1
        message_id = (
            f"{self._uuid}-{int(now.timestamp() * 1000)}-{self._sent - 1}-{self._random.randrange(36**4):04x}"
        )
        return {"timestamp": _iso(now), "protocol": "modbus", "messages": messages, "msgId": message_id}

    def _reading(self, when: str, bad: float) -> dict[str, Any]:
        number = self._next % self._series
        self._next += 1
        name, unit, middle, swing = METRICS[number % len(METRICS)]
        metric = name if number < len(METRICS) else f"{name}_{number // len(METRICS) + 1}"
        value: Any = round(middle + swing * math.sin(self._next / 97) + self._random.gauss(0, swing / 20), 3)
        if not swing:
            value = bool(middle)
        reading = {
            "timestamp": when,
            "deviceName": self._device,
            "deviceId": "modbus:tcp:192.0.2.10:502:slave:1",
            "endpoint_uuid": self._device_uuid,
            "device_uuid": self._device_uuid,
            "protocol": "modbus",
            "metric": metric,
            "value": value,
            "unit": unit,
            "quality": "GOOD",
        }
        if self._full:
            reading |= self._details(metric, value, unit)
        if bad and self._random.random() < bad:
            reading |= self._random.choice(BAD)
        return reading

    def _details(self, metric: str, value: Any, unit: str) -> dict[str, Any]:
        """Return the fields that the real agent adds to each reading and that no consumer needs."""
        return {
            "pointIdentity": {
                "provisionalPointId": str(uuid5(NAMESPACE_OID, f"{self._device} {metric}")),
                "normalizedName": f"{self._device}_{metric}".replace("-", "_"),
                "rawName": metric,
                "rawDeviceName": self._device,
                "rulesVersion": "pn-rules-v3",
                "provenance": {"method": "algorithmic", "resolutionSource": "runtime-generated"},
            },
            "unitValue": {
                "rawValue": value,
                "rawUnit": unit,
                "value": value,
                "unit": unit,
                "normalized": True,
            },
            "dataQuality": {
                "checks": {"source": {"status": "passed"}, "value": {"status": "passed"}},
                "status": "good",
                "rulesVersion": "dq-rules-v1",
                "engineVersion": "1.0.0",
            },
        }


def encode(message: dict[str, Any], encoding: str) -> bytes:
    """Return the payload of a message in one of `ENCODINGS`; "both" is MessagePack inside deflate."""
    if encoding in ("msgpack", "both"):
        document = msgspec.msgpack.encode(message)
    else:
        document = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    return zlib.compress(document) if encoding in ("deflate", "both") else document


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
