"""Secrets that are told once: how they look, and the digest that is kept in their place."""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode
from typing import Final, NamedTuple
from uuid import UUID

from iotistica.domain.ids import base64url
from iotistica.domain.key_derivation import derive

ENTROPY: Final = 32  # bytes of randomness in a secret
SHORTEST: Final = 32  # characters of a secret that somebody else made
LONGEST: Final = 256  # characters

PROVISIONING: Final = "prov_"
AGENT: Final = "iotsk_live_"
INTEGRATION: Final = "iotak_"
SESSION: Final = "iotrt_"
LINK: Final = "iotln_"

_HINT: Final = 6  # characters of a secret shown in lists


class NewSecret(NamedTuple):
    """A new secret: the text that is told once, the digest that is kept, and the hint that people know it by."""

    text: str
    digest: bytes
    hint: str


def new(key: bytes, prefix: str, entropy: bytes) -> NewSecret:
    """A secret of `ENTROPY` random bytes; its prefix says what it is, so that scanners find it where it leaks."""
    text = prefix + base64url(entropy)
    return NewSecret(text, digest(key, text), text[: len(prefix) + _HINT])


def digest(key: bytes, text: str) -> bytes:
    """What is kept of a secret: without the server's key a stolen table cannot even be guessed against."""
    return hmac.digest(derive(key, "digest"), text.encode("utf-8", "replace"), hashlib.sha256)


def new_session(key: bytes, session: UUID, entropy: bytes) -> NewSecret:
    """A refresh token: it names its session, so that one used before is known as such, and is signed.

    The session's id is no secret: without the signature anybody who read it somewhere could make a token that looks
    used before, and end the session.
    """
    body = session.bytes + entropy
    return new(key, SESSION, body + _signature(key, body))


def session_of(key: bytes, token: str) -> UUID | None:
    """The session that a refresh token of ours names, or None if it is none of ours."""
    try:
        raw = urlsafe_b64decode(token.removeprefix(SESSION) + "==")
    except (binascii.Error, ValueError):
        return None
    body, signature = raw[: 16 + ENTROPY], raw[16 + ENTROPY :]
    if SESSION + base64url(raw) != token or not hmac.compare_digest(signature, _signature(key, body)):
        return None
    return UUID(bytes=body[:16])


def _signature(key: bytes, body: bytes) -> bytes:
    return hmac.digest(derive(key, "refresh-token"), body, hashlib.sha256)[:16]
