"""Verifies that an agent holds the private key of the public key that it registered."""

import binascii
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

_HALF: Final = 32  # bytes of r, and of s


def public_key(pem: str) -> PublicKey:
    """Return the Ed25519 or P-256 key in a PEM; raises ValueError for anything else."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ValueError("not a public key in PEM") from exc
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("only Ed25519 and P-256 keys are accepted")


def is_proven(key: PublicKey, agent: UUID, challenges: Iterable[str], signature: str) -> bool:
    """Whether the base64 signature is valid for `<uuid>:<challenge>` with one of these challenges."""
    try:
        raw = b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_is_signed(key, f"{agent}:{challenge}".encode(), raw) for challenge in challenges)


def _is_signed(key: PublicKey, message: bytes, signature: bytes) -> bool:
    with suppress(InvalidSignature, ValueError):
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(_der(signature), message, ECDSA(SHA256()))
        return True
    return False


def _der(signature: bytes) -> bytes:
    """Return an ECDSA signature in DER; the raw concatenation of r and s that WebCrypto returns is converted."""
    if len(signature) != 2 * _HALF:
        return signature
    r, s = signature[:_HALF], signature[_HALF:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
