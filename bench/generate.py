"""Makes the traffic: lean messages of many agents, ready to be written to a socket."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from iotistica.domain.ids import agent_topic
from iotistica.mqtt.protocol import publish_packet
from iotistica.simulate.envelope import METRICS
from iotistica.simulate.fleet import SimulatedAgent

SERIES = 10


def payloads(start: datetime, messages: int, number: int) -> list[bytes]:
    """The payloads of one agent: a poll of `SERIES` lean readings each, a millisecond apart."""
    out = []
    device = f"plc-{number:05}"
    for poll in range(messages):
        when = (start + timedelta(milliseconds=poll)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        readings = [
            {
                "timestamp": when,
                "deviceName": device,
                "metric": METRICS[n][0],
                "value": round(20 + n + (poll * 7 + number) % 100 / 8, 3),
                "unit": METRICS[n][1],
                "quality": "GOOD",
            }
            for n in range(SERIES)
        ]
        envelope = {
            "timestamp": when,
            "protocol": "modbus",
            "messages": [{"timestamp": when, "readings": readings}],
        }
        out.append(json.dumps(envelope, separators=(",", ":")).encode())
    return out


def packets(members: Sequence[SimulatedAgent], start: datetime, messages: int) -> list[list[bytes]]:
    """For each agent its PUBLISH packets of MQTT 5, QoS 1."""
    out = []
    for number, member in enumerate(members):
        topic = f"{agent_topic(member.tenant, member.agent)}/endpoints/modbus".encode()
        own = payloads(start, messages, number)
        out.append([publish_packet(topic, payload, mid + 1) for mid, payload in enumerate(own)])
    return out


def now() -> datetime:
    """A start that leaves room for the polls without reaching into the future."""
    return datetime.now(UTC) - timedelta(minutes=1)
