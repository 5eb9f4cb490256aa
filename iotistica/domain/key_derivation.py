"""Derives a separate key for each purpose from the server's key."""

import hashlib
import hmac


def derive(key: bytes, *purpose: str) -> bytes:
    """Return the 256-bit key for a purpose, which one or more words name."""
    return hmac.digest(key, "\0".join(purpose).encode(), hashlib.sha256)
