"""Broker accounts: derived passwords and Mosquitto's password lines."""

import hashlib
import hmac
from base64 import b64encode
from typing import Final
from uuid import UUID

from iotistica.domain.ids import base64url

# One PBKDF2 iteration: every password is 256 bits of HMAC, so there is nothing to guess, and Mosquitto
# verifies each connected client again at a reload.
ITERATIONS: Final = 1
SALT_BYTES: Final = 12


def derive(key: bytes, *purpose: str) -> bytes:
    """A 256-bit key for one purpose."""
    return hmac.digest(key, "\0".join(purpose).encode(), hashlib.sha256)


def mqtt_password(key: bytes, agent: UUID, generation: int) -> str:
    """An agent's MQTT password: the same for the same generation, so that it can be told again."""
    return base64url(derive(key, "mqtt", str(agent), str(generation)))


def service_password(key: bytes, name: str) -> str:
    """The MQTT password of a part of the platform."""
    return base64url(derive(key, "mqtt-service", name))


def password_line(username: str, password: str, salt: bytes) -> str:
    """A line of Mosquitto's password file; `salt` of `SALT_BYTES`."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{username}:$7${ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"
