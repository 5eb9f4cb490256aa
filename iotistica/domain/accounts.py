"""Broker accounts: derived passwords and Mosquitto's password lines."""

import hashlib
import hmac
from base64 import b64decode, b64encode, urlsafe_b64encode
from typing import Final
from uuid import UUID

# One PBKDF2 iteration: every password is 256 bits of HMAC, so there is nothing to guess, and Mosquitto
# verifies each connected client again at a reload.
ITERATIONS: Final = 1
SALT_BYTES: Final = 12


def derive(key: bytes, *purpose: str) -> bytes:
    """A 256-bit key for one purpose."""
    return hmac.digest(key, "\0".join(purpose).encode(), hashlib.sha256)


def mqtt_password(key: bytes, agent: UUID, generation: int) -> str:
    """An agent's MQTT password: the same for the same generation, so that it can be told again."""
    return _text(derive(key, "mqtt", str(agent), str(generation)))


def service_password(key: bytes, name: str) -> str:
    """The MQTT password of a part of the platform."""
    return _text(derive(key, "mqtt-service", name))


def password_line(username: str, password: str, salt: bytes) -> str:
    """A line of Mosquitto's password file; `salt` of `SALT_BYTES`."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{username}:$7${ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def line_matches(line: str, password: str) -> bool:
    """Whether a password line is of this password."""
    try:
        username, _, rest = line.partition(":")
        _, kind, rounds, salt, digest = rest.split("$")
        found = hashlib.pbkdf2_hmac("sha512", password.encode(), b64decode(salt), int(rounds))
    except ValueError:
        return False
    return bool(username) and kind == "7" and hmac.compare_digest(found, b64decode(digest))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
