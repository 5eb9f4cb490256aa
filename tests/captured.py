"""What the public agent sent, with its times moved to now."""

import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent / "captures"
TENANT = "a1b2c3d4e5f6"
AGENT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
RECORDED = datetime(2026, 11, 23, 7, 55, tzinfo=UTC)
_STAMP = re.compile(r"2026-11-23T07:\d\d:\d\d\.\d{3}Z")


def packets(name: str) -> list[dict[str, Any]]:
    """The captured PUBLISH packets of a file, or its HTTP exchanges, in order."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


class Shift:
    """Moves captured times so that the recording ended a few minutes ago."""

    def __init__(self, now: datetime) -> None:
        self._by = now.replace(microsecond=0) - RECORDED

    def payload(self, packet: dict[str, Any]) -> tuple[bytes, Any]:
        """The payload with its times moved, in the encoding it had, and what it says."""
        raw = bytes.fromhex(packet["payload_hex"])
        deflated = raw[:1] == b"\x78"
        document = zlib.decompress(raw) if deflated else raw
        packed = document[:1] not in (b"{", b"[")
        content = self._moved(msgspec.msgpack.decode(document) if packed else json.loads(document))
        document = msgspec.msgpack.encode(content) if packed else json.dumps(content).encode()
        return (zlib.compress(document) if deflated else document), content

    def _moved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._moved(item) for item in value]
        if isinstance(value, str) and _STAMP.fullmatch(value):
            when = datetime.fromisoformat(value) + self._by
            return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return value


def readings(content: Any) -> Iterator[dict[str, Any]]:
    """The readings of an envelope, as the agent wrote them."""
    for message in content["messages"]:
        yield from message["readings"]


def moved_now() -> Shift:
    """A shift for this moment."""
    return Shift(datetime.now(UTC) - timedelta(minutes=1))
