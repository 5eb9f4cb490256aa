"""Keys derived from the server's key, one for each purpose."""

import hashlib
import hmac


def derive(key: bytes, *purpose: str) -> bytes:
    """A 256-bit key for one purpose."""
    return hmac.digest(key, "\0".join(purpose).encode(), hashlib.sha256)
