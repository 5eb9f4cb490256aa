"""Access tokens, and the holes of the library beneath them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from jose import jwt

from iotistica.api.tokens import AUDIENCE, ISSUER, LIFETIME, Tokens
from iotistica.errors import CannotStart, Unauthorized

KEY = bytes(range(32))
USER = uuid4()


def claims(**changed: Any) -> dict[str, Any]:
    now = int(datetime.now(UTC).timestamp())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "tenant": "a1b2c3d4e5f6", "role": "viewer"}
    whole |= {"iat": now, "exp": now + 60} | changed
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: str = KEY.hex(), algorithm: str = "HS256", **changed: Any) -> str:
    return str(jwt.encode(claims(**changed), key, algorithm=algorithm))


def test_a_token_says_who() -> None:
    """What is issued is read back."""
    tokens = Tokens(KEY)
    token = tokens.issue(user=USER, tenant="a1b2c3d4e5f6", role="viewer", now=datetime.now(UTC))
    found = tokens.check(token)
    assert (found.sub, found.tenant, found.role) == (USER, "a1b2c3d4e5f6", "viewer")


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub", "tenant", "role"])
def test_a_token_without_a_claim_is_refused(claim: str) -> None:
    """The library itself lets a token without exp or aud pass."""
    Tokens(KEY).check(signed())
    with pytest.raises(Unauthorized):
        Tokens(KEY).check(signed(**{claim: None}))


@pytest.mark.parametrize(
    "token",
    [
        signed(aud="another"),
        signed(iss="another"),
        signed(exp=1),
        signed(sub="nobody"),
        signed(key="another key of enough length, surely"),
        signed(algorithm="HS512"),
        "eyJhbGciOiJub25lIn0." + signed().split(".")[1] + ".",
        "",
        "a.b.c",
    ],
)
def test_a_forged_token_is_refused(token: str) -> None:
    """Another audience, issuer, key or algorithm, none at all, or too old."""
    with pytest.raises(Unauthorized):
        Tokens(KEY).check(token)


def test_a_token_ends() -> None:
    """After its lifetime it is worth nothing."""
    tokens = Tokens(KEY)
    old = datetime.now(UTC) - LIFETIME - timedelta(seconds=1)
    with pytest.raises(Unauthorized):
        tokens.check(tokens.issue(user=USER, tenant="a1b2c3d4e5f6", role="viewer", now=old))


def test_a_short_key_is_refused() -> None:
    """The library takes an empty one."""
    with pytest.raises(CannotStart):
        Tokens(b"short")
