"""Broker accounts: derived passwords and Mosquitto's password lines."""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final
from uuid import UUID

from iotistica.domain.ids import TenantId, base64url
from iotistica.domain.key_derivation import derive

# One PBKDF2 iteration: every password is 256 bits of HMAC, so there is nothing to guess, and Mosquitto
# verifies each connected client again at a reload.
ITERATIONS: Final = 1
SALT_BYTES: Final = 12

# The intake's account. Its name makes the pattern `%u/#` mean every topic of agents: at a reload Mosquitto 2.0
# forgets the `user` lines of sessions that came back from disk and are not connected yet, and what is
# published then would pass them by.
SERVICE_USER: Final = "i"
WATCH_USER: Final = "iotistica-watch"
"""Reads the broker's own figures: a session of the intake is not read while it pauses."""


def mqtt_password(key: bytes, tenant: TenantId, agent: UUID, generation: int) -> str:
    """An agent's MQTT password: the same for the same generation, so that it can be told again."""
    return base64url(derive(key, "mqtt", tenant, str(agent), str(generation)))


def service_password(key: bytes, name: str) -> str:
    """The MQTT password of a part of the platform."""
    return base64url(derive(key, "mqtt-service", name))


def password_line(username: str, password: str, salt: bytes) -> str:
    """A line of Mosquitto's password file; `salt` of `SALT_BYTES`."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{username}:$7${ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def password_fits(line: str, password: str) -> bool:
    """Whether it is the password of a line, found in the same time whatever it is."""
    try:
        _, kind, iterations, salt, digest = line.rpartition(":")[2].split("$")
        wanted = b64decode(digest)
        got = hashlib.pbkdf2_hmac("sha512", password.encode("utf-8", "replace"), b64decode(salt), int(iterations))
    except (ValueError, binascii.Error):
        return False
    return kind == "7" and hmac.compare_digest(wanted, got)
