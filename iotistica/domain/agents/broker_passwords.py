"""Broker accounts: derived passwords and Mosquitto's password lines."""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final
from uuid import UUID

from iotistica.domain.ids import TenantId, base64url
from iotistica.domain.key_derivation import derive

# One PBKDF2 iteration is enough: every password is a 256-bit HMAC, which cannot be guessed. More iterations would
# cost time, since Mosquitto verifies each connected client again when it reloads.
ITERATIONS: Final = 1
SALT_BYTES: Final = 12

# The intake's account. Because of this name the ACL pattern `%u/#` matches every topic of agents. Mosquitto 2.0
# forgets, when it reloads, the `user` lines of sessions that were restored from disk and are not connected yet;
# without the pattern, messages published at that time would not be queued for such a session.
SERVICE_USER: Final = "i"
WATCH_USER: Final = "iotistica-watch"
"""Reads the broker's `$SYS` statistics with a separate session, since the intake's is not read while it pauses."""


def mqtt_password(key: bytes, tenant: TenantId, agent: UUID, generation: int) -> str:
    """Return an agent's MQTT password; always the same for one generation, so it can be sent to the agent again."""
    return base64url(derive(key, "mqtt", tenant, str(agent), str(generation)))


def service_password(key: bytes, name: str) -> str:
    """Return the MQTT password of the platform's account `name`."""
    return base64url(derive(key, "mqtt-service", name))


def password_line(username: str, password: str, salt: bytes) -> str:
    """Return a line of Mosquitto's password file; `salt` has `SALT_BYTES` bytes."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{username}:$7${ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def password_fits(line: str, password: str) -> bool:
    """Whether the password matches a line of Mosquitto's password file, compared in constant time."""
    try:
        _, kind, iterations, salt, digest = line.rpartition(":")[2].split("$")
        expected = b64decode(digest)
        actual = hashlib.pbkdf2_hmac(
            "sha512", password.encode("utf-8", "replace"), b64decode(salt), int(iterations)
        )
    except (ValueError, binascii.Error):
        return False
    return kind == "7" and hmac.compare_digest(expected, actual)
