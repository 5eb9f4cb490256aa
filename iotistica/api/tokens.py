"""Access tokens: the only jose, with its holes closed."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from jose import JWTError, jwt

from iotistica.errors import CannotStart, Unauthorized

ALGORITHM: Final = "HS256"
ISSUER: Final = "iotistica"
AUDIENCE: Final = "iotistica-api"
LONGEST: Final = 4096  # characters of a token
LIFETIME: Final = timedelta(minutes=15)
# jose accepts a token that lacks these unless told otherwise.
_REQUIRED: Final = {f"require_{claim}": True for claim in ("exp", "iat", "aud", "iss", "sub")}


class Claims(msgspec.Struct, frozen=True):
    sub: UUID
    tenant: str
    role: str
    exp: int
    iat: int


class Tokens:
    """Signs and checks tokens with one key and one algorithm."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise CannotStart("the key for access tokens is shorter than 32 bytes")
        self._key = key.hex()

    def issue(self, *, user: UUID, tenant: str, role: str, now: datetime) -> str:
        """A token of `LIFETIME` for a user."""
        claims = {
            **{"iss": ISSUER, "aud": AUDIENCE, "sub": str(user), "tenant": tenant, "role": role},
            **{"iat": int(now.timestamp()), "exp": int((now + LIFETIME).timestamp())},
        }
        return str(jwt.encode(claims, self._key, algorithm=ALGORITHM))

    def check(self, token: str) -> Claims:
        """The claims of a valid token; raises `Unauthorized`."""
        if len(token) > LONGEST:
            raise Unauthorized("the access token is too long")
        try:
            claims = jwt.decode(
                token, self._key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, options=_REQUIRED
            )
            return msgspec.convert(claims, Claims)
        except (JWTError, msgspec.ValidationError, RecursionError, ValueError, TypeError, AttributeError) as exc:
            raise Unauthorized("the access token is not valid: log in again") from exc


def now() -> datetime:
    """The clock tokens go by."""
    return datetime.now(UTC)
