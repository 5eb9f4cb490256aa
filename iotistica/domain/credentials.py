"""Secrets that are told once: how they look, and the digest that is kept in their place."""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode
from typing import Final
from uuid import UUID

from iotistica.domain.accounts import derive
from iotistica.domain.ids import base64url

ENTROPY: Final = 32  # bytes of randomness in a secret
SHORTEST: Final = 32  # characters of a secret that somebody else made
LONGEST: Final = 256  # characters

PROVISIONING: Final = "prov_"
AGENT: Final = "iotsk_live_"
INTEGRATION: Final = "iotak_"
SESSION: Final = "iotrt_"
LINK: Final = "iotln_"

_HINT: Final = 6  # characters of a secret shown in lists


def secret(prefix: str, entropy: bytes) -> str:
    """A secret of `ENTROPY` random bytes that says what it is, so that scanners find it where it leaks."""
    return prefix + base64url(entropy)


def hint(prefix: str, text: str) -> str:
    """The beginning of a secret, by which people know it again."""
    return text[: len(prefix) + _HINT]


def digest(key: bytes, text: str) -> bytes:
    """What is kept of a secret: without the server's key a stolen table cannot even be guessed against."""
    return hmac.digest(derive(key, "digest"), text.encode("utf-8", "replace"), hashlib.sha256)


def session_token(session: UUID, entropy: bytes) -> str:
    """A refresh token: it names its session, so that one used before is known as such."""
    return secret(SESSION, session.bytes + entropy)


def session_of(token: str) -> UUID | None:
    """The session that a refresh token names, or None if it is no refresh token."""
    try:
        raw = urlsafe_b64decode(token.removeprefix(SESSION) + "==")
    except (binascii.Error, ValueError):
        return None
    return UUID(bytes=raw[:16]) if token.startswith(SESSION) and len(raw) == 16 + ENTROPY else None
