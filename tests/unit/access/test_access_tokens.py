"""Access tokens, and the holes of the library beneath them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jose import jwt

from iotistica.api.http.access_tokens import AUDIENCE, ISSUER, LIFETIME, AccessTokens
from iotistica.errors import CannotStart, Unauthorized

KEY = bytes(range(32))
USER, SESSION = uuid4(), uuid4()
PRIVATE = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)


def pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def public_pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.pem"
    path.write_text(pem(PRIVATE) + public_pem(OTHER))
    return path


@pytest.fixture(scope="module", params=["HS256", "RS256"])
def tokens(request: pytest.FixtureRequest, key_file: Path) -> AccessTokens:
    return AccessTokens(KEY, str(key_file) if request.param == "RS256" else "")


Sign = Callable[..., str]


@pytest.fixture(scope="module")
def sign(tokens: AccessTokens) -> Sign:
    """Signs claims with the right key, or another; a claim of None is left out."""

    def make(key: Any = None, algorithm: str = "", kid: str | None = tokens._kid, **changed: Any) -> str:
        now = int(datetime.now(UTC).timestamp())
        whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "sid": str(SESSION)}
        whole |= {"iat": now, "exp": now + 60} | changed
        claims = {name: value for name, value in whole.items() if value is not None}
        headers = {"kid": kid} if kid is not None else None
        signer = key if key is not None else tokens._signer
        return str(jwt.encode(claims, signer, algorithm=algorithm or tokens._algorithm, headers=headers))

    return make


def test_a_token_says_who(tokens: AccessTokens) -> None:
    """What is issued is read back."""
    found = tokens.check(tokens.issue(user=USER, session=SESSION, now=datetime.now(UTC)))
    assert (found.sub, found.sid) == (USER, SESSION)


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub", "sid"])
def test_a_token_without_a_claim_is_refused(tokens: AccessTokens, sign: Sign, claim: str) -> None:
    """The library itself lets a token without exp or aud pass."""
    tokens.check(sign())
    with pytest.raises(Unauthorized):
        tokens.check(sign(**{claim: None}))


@pytest.mark.parametrize(
    "changed",
    [{"aud": "another"}, {"iss": "another"}, {"exp": 1}, {"sub": "nobody"}, {"kid": "another"}, {"kid": None}],
)
def test_a_forged_token_is_refused(tokens: AccessTokens, sign: Sign, changed: dict[str, Any]) -> None:
    """Another audience or issuer, too old, or a key nobody knows."""
    with pytest.raises(Unauthorized):
        tokens.check(sign(**changed))


@pytest.mark.parametrize("token", ["", "a.b.c", "." * 5000, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_refused(tokens: AccessTokens, token: str) -> None:
    """Nothing of it reaches a caller as another error."""
    with pytest.raises(Unauthorized):
        tokens.check(token)


def test_no_other_algorithm_is_taken(tokens: AccessTokens, sign: Sign) -> None:
    """None at all, a longer hash, or another kind: a key is for one algorithm, whatever the header says."""
    for algorithm in ("HS256", "HS384", "HS512"):
        if algorithm != tokens._algorithm:
            with pytest.raises(Unauthorized):
                tokens.check(sign(key=KEY.hex(), algorithm=algorithm))
    unsigned = sign().rpartition(".")[0] + "."
    with pytest.raises(Unauthorized):
        tokens.check(unsigned)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_the_public_key_is_no_shared_secret(key_file: Path, sign: Sign, encoding: Encoding) -> None:
    """The library accepts a DER public key as the secret of HS256 where both kinds are in its list."""
    import hmac
    import json
    from base64 import urlsafe_b64encode

    found = AccessTokens(KEY, str(key_file))
    secret = PRIVATE.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    body = sign(kid=found._kid).split(".")[1]
    head = json.dumps({"alg": "HS256", "typ": "JWT", "kid": found._kid}).encode()
    signed = urlsafe_b64encode(head).rstrip(b"=").decode() + "." + body
    mac = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
    with pytest.raises(Unauthorized):
        found.check(f"{signed}.{mac}")


def test_an_empty_secret_signs_nothing(tokens: AccessTokens, sign: Sign) -> None:
    """The library takes an empty key."""
    with pytest.raises(Unauthorized):
        tokens.check(sign(key="", algorithm="HS256"))


def test_an_old_key_is_checked_by_and_signs_no_more(key_file: Path, tmp_path: Path) -> None:
    """Keys rotate: the new one comes first in the file, the old one stays until its tokens have ended."""
    before = tmp_path / "before.pem"
    before.write_text(pem(OTHER))
    old = AccessTokens(KEY, str(before)).issue(user=USER, session=SESSION, now=datetime.now(UTC))
    now = AccessTokens(KEY, str(key_file))
    assert now.check(old).sub == USER
    assert now.jwks[0]["kid"] == now._kid
    assert {key["kty"] for key in now.jwks} == {"RSA"}
    assert not any({"d", "p", "q"} & set(key) for key in now.jwks)


def test_a_token_ends(tokens: AccessTokens) -> None:
    """After its lifetime it is worth nothing."""
    old = datetime.now(UTC) - LIFETIME - timedelta(seconds=1)
    with pytest.raises(Unauthorized):
        tokens.check(tokens.issue(user=USER, session=SESSION, now=old))


def test_a_key_of_another_server_signs_nothing(tokens: AccessTokens, sign: Sign) -> None:
    """The same algorithm and name of the key, but not the key."""
    key = pem(OTHER) if tokens._algorithm == "RS256" else "another key of enough length, surely"
    with pytest.raises(Unauthorized):
        tokens.check(sign(key=key))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        public_pem(PRIVATE),
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 1024)),
        pem(PRIVATE) + public_pem(ec.generate_private_key(ec.SECP256R1())),
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode(),
    ],
)
def test_a_bad_key_file_cannot_start(tmp_path: Path, text: str) -> None:
    """No key, no private one, another kind, too short, or locked: said at the start, not at the first log-in."""
    path = tmp_path / "keys.pem"
    path.write_text(text)
    with pytest.raises(CannotStart):
        AccessTokens(KEY, str(path))


def test_a_short_key_and_a_missing_file_cannot_start(tmp_path: Path) -> None:
    """The library takes an empty key."""
    with pytest.raises(CannotStart):
        AccessTokens(b"short")
    with pytest.raises(CannotStart):
        AccessTokens(KEY, str(tmp_path / "none.pem"))
