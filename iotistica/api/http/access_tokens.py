"""Signs and verifies access tokens (JWT); the only module that uses jose, restricted to safe settings."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jose import JWTError, jwk, jwt

from iotistica.errors import CannotStart, Unauthorized

ISSUER: Final = "iotistica"
AUDIENCE: Final = "iotistica-api"
LONGEST: Final = 4096  # characters of a token
LIFETIME: Final = timedelta(minutes=15)
RSA_BITS: Final = 2048  # minimum size of an RSA key
# By default jose accepts a token without these claims.
_REQUIRED: Final = {f"require_{claim}": True for claim in ("exp", "iat", "aud", "iss", "sub")}
_PEM: Final = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class Claims(msgspec.Struct, frozen=True):
    """The user and the session; the permissions are read from the database, never from the token."""

    sub: UUID
    sid: UUID
    exp: int
    iat: int


class Key(NamedTuple):
    """A key and its only algorithm, so that jose never chooses from a list of algorithms."""

    algorithm: str
    check: Any


class AccessTokens:
    """Signs tokens with one key, and verifies a token with the key that its `kid` names."""

    def __init__(self, secret: bytes, key_file: str = "") -> None:
        """Use HS256 with `secret`, or RS256 with the first key of a PEM file; its other keys only verify tokens."""
        if len(secret) < 32:
            raise CannotStart("The key for access tokens is shorter than 32 bytes.")
        self.jwks: list[dict[str, str]] = []
        self._keys: dict[str, Key] = {}
        if key_file:
            self._load(key_file)
        else:
            self._algorithm, self._kid = "HS256", hashlib.sha256(secret).hexdigest()[:16]
            self._signer: Any = secret.hex()
            self._keys[self._kid] = Key("HS256", self._signer)

    def issue(self, *, user: UUID, session: UUID, now: datetime) -> str:
        """Return a token for a session of a user; it expires after `LIFETIME`."""
        claims = {
            **{"iss": ISSUER, "aud": AUDIENCE, "sub": str(user), "sid": str(session)},
            **{"iat": int(now.timestamp()), "exp": int((now + LIFETIME).timestamp())},
        }
        return str(jwt.encode(claims, self._signer, algorithm=self._algorithm, headers={"kid": self._kid}))

    def check(self, token: str) -> Claims:
        """Return the claims of a valid token; raises `Unauthorized`."""
        if len(token) > LONGEST:
            raise Unauthorized("The access token is too long.")
        try:
            head = jwt.get_unverified_header(token)
            key = self._keys[head["kid"]]
            claims = jwt.decode(
                token, key.check, algorithms=[key.algorithm], audience=AUDIENCE, issuer=ISSUER, options=_REQUIRED
            )
            return msgspec.convert(claims, Claims)
        except (
            *(JWTError, msgspec.ValidationError, RecursionError),
            *(ValueError, TypeError, AttributeError, LookupError),
        ) as exc:
            raise Unauthorized("The access token is invalid or has expired: log in again.") from exc

    def _load(self, path: str) -> None:
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise CannotStart(f"Cannot read the token keys in {path}: {exc}") from exc
        blocks = [match.group(0).encode() for match in _PEM.finditer(text)]
        if not blocks or b"PRIVATE" not in blocks[0].split(b"\n", 1)[0]:
            raise CannotStart(f"{path} must begin with the private RSA key that signs tokens, in PEM format.")
        for block in blocks:
            self._add(block, path)
        private = _private(blocks[0], path)
        self._algorithm, self._kid = "RS256", self.jwks[0]["kid"]
        # Built once: a signature takes 64 times as long if the PEM is parsed each time.
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._signer = jwk.construct(pem, "RS256")

    def _add(self, block: bytes, path: str) -> None:
        if b"PRIVATE" in block.split(b"\n", 1)[0]:
            public = _private(block, path).public_key()
        else:
            try:
                loaded = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as exc:
                raise CannotStart(f"{path} contains a public key that cannot be read.") from exc
            if not isinstance(loaded, RSAPublicKey):
                raise CannotStart(f"{path} contains a key that is not an RSA key.")
            public = loaded
        if public.key_size < RSA_BITS:
            raise CannotStart(f"{path} contains an RSA key of fewer than {RSA_BITS} bits.")
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        key = jwk.construct(pem.decode(), "RS256")
        kid = hashlib.sha256(pem).hexdigest()[:16]
        self._keys[kid] = Key("RS256", key)
        self.jwks.append({**key.to_dict(), "kid": kid, "use": "sig"})


def _private(block: bytes, path: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(block, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise CannotStart(
            f"{path} contains a private key that cannot be read; it must not have a password."
        ) from exc
    if not isinstance(key, RSAPrivateKey):
        raise CannotStart(f"{path} contains a key that is not an RSA key.")
    return key


def now() -> datetime:
    """Return the current time, by which tokens are issued."""
    return datetime.now(UTC)
