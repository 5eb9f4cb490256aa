"""Topic filters, passwords, proofs and secrets: rules without a server."""

import re
from base64 import b64encode
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.access import credentials, passwords
from iotistica.domain.agents import key_proofs, topic_filters
from iotistica.domain.agents.broker_connection import printable
from iotistica.domain.agents.broker_passwords import mqtt_password, password_fits, password_line
from iotistica.domain.ids import TenantId

LEVELS = st.sampled_from(["a", "b", "c"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join)
FILTERS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "+"]), min_size=0, max_size=3), st.sampled_from(["", "#", "c"])
).map(lambda parts: "/".join([*parts[0], *([parts[1]] if parts[1] else [])]) or "#")


def matches(rule: str, topic: str) -> bool:
    """MQTT 5, section 4.7, as a regular expression."""
    pattern = re.escape(rule).replace(r"\+", "[^/]+")
    pattern = re.sub(r"/\\?#$", "(/.*)?", pattern)
    return re.fullmatch(re.sub(r"^\\?#$", ".*", pattern), topic) is not None


@given(FILTERS, TOPICS)
def test_a_topic_is_covered_as_the_standard_matches_it(rule: str, topic: str) -> None:
    """For topics `covers` is MQTT's own matching."""
    assert topic_filters.covers(rule, topic) == matches(rule, topic)


@given(FILTERS, FILTERS, TOPICS)
def test_a_covered_filter_matches_nothing_more(rule: str, asked: str, topic: str) -> None:
    """Whoever may subscribe to a filter gets nothing that the rule does not cover."""
    if topic_filters.covers(rule, asked) and matches(asked, topic):
        assert matches(rule, topic)


@pytest.mark.parametrize(
    "topic",
    ["", "a" * 300, "a b", "a\n", "a\ntopic readwrite #", "ü", "/a", "$SYS/#", "a+/b", "a/#/b", "#a", "a#", "a\0"],
)
def test_a_bad_filter_is_no_rule(topic: str) -> None:
    """Above all one that would be a line of its own in the broker's file."""
    assert topic_filters.problem(topic)


@pytest.mark.parametrize("topic", ["#", "a/#", "+/a/#", "a/+/endpoints/modbus", "a-b_c.d/e"])
def test_a_good_filter_is_taken(topic: str) -> None:
    """Wildcards stand for whole levels."""
    assert topic_filters.problem(topic) is None


def test_passwords_are_taken_or_not() -> None:
    """Length, the commonest words with digits around them, and the user's own name."""
    for bad in ("1234567", "Password1!", "password", "qwerty123", "aaaabbbb", "20261123", "x" * 1025):
        assert passwords.problem(bad), bad
    assert passwords.problem("anna-maria", "Anna-Maria@example.com")
    for good in ("a-viewer-for-tests", "Tr0ub4dor&3", "correct horse battery staple", "ünïcödé-pass"):
        assert passwords.problem(good, "anna@example.com") is None, good


def test_a_lock_grows_and_has_an_end() -> None:
    """Nothing for a few, then doubling, at most a quarter of an hour."""
    waits = [passwords.lock_seconds(n) for n in range(40)]
    assert waits[:5] == [0] * 5
    assert waits[5:8] == [1, 2, 4]
    assert waits[-1] == max(waits) == passwords.LONGEST_LOCK
    assert waits == sorted(waits)


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p256 raw"])
def test_a_proof_is_over_one_of_the_challenges(kind: str) -> None:
    """With the key that was registered, for this agent; ECDSA in DER or as bare numbers."""
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    agent = uuid4()

    def sign(text: str) -> str:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return b64encode(key.sign(text.encode())).decode()
        raw = key.sign(text.encode(), ec.ECDSA(SHA256()))
        if kind == "p256 raw":
            raw = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(raw))
        return b64encode(raw).decode()

    public = key_proofs.public_key(_pem(key))
    assert key_proofs.is_proven(public, agent, ["one", "two"], sign(f"{agent}:two"))
    assert not key_proofs.is_proven(public, agent, ["one"], sign(f"{agent}:two"))
    assert not key_proofs.is_proven(public, uuid4(), ["two"], sign(f"{agent}:two"))
    assert not key_proofs.is_proven(public, agent, [], sign(f"{agent}:two"))
    other = key_proofs.public_key(_pem(ec.generate_private_key(ec.SECP256R1())))
    assert not key_proofs.is_proven(other, agent, ["two"], sign(f"{agent}:two"))


@given(st.text(max_size=100))
def test_no_text_is_a_proof(text: str) -> None:
    """Nor does any of it raise."""
    assert not key_proofs.is_proven(key_proofs.public_key(_pem(KEY)), uuid4(), ["c"], text)


KEY = ed25519.Ed25519PrivateKey.generate()


def test_only_two_kinds_of_keys_are_taken() -> None:
    """Others, and what is no key at all."""
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(ValueError, match="only Ed25519"):
            key_proofs.public_key(_pem(key))
    for text in ("", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\0"):
        with pytest.raises(ValueError, match="not a public key"):
            key_proofs.public_key(text)


def test_a_line_fits_its_password_alone() -> None:
    """As Mosquitto checks it."""
    line = password_line("t/a/x", mqtt_password(bytes(32), TenantId("0" * 12), uuid4(), 1), b"0" * 12)
    assert not password_fits(line, "")
    assert password_fits(password_line("n", "pass", b"0" * 12), "pass")
    assert not password_fits("n:nonsense", "pass")
    assert not password_fits("n:$6$1$AAAA$AAAA", "pass")


@given(st.uuids(), st.binary(min_size=32, max_size=32))
def test_a_refresh_token_names_its_session(session: object, entropy: bytes) -> None:
    """And nothing else does."""
    token = credentials.new_session(bytes(32), session, entropy).text  # type: ignore[arg-type]
    assert credentials.session_of(bytes(32), token) == session
    for other in (token[:-4], token.removeprefix("iotrt_"), token[:-1] + ("A" if token[-1] != "A" else "B")):
        assert credentials.session_of(bytes(32), other) is None
    assert credentials.session_of(b"1" * 32, token) is None


@given(st.text(max_size=200))
def test_no_text_breaks_a_digest_or_a_token(text: str) -> None:
    """Whatever a caller sends as a secret."""
    assert len(credentials.digest(bytes(32), text)) == 32
    assert credentials.session_of(bytes(32), text) is None
    shown = printable(text, 20)
    assert shown is None or (shown.isprintable() and 1 <= len(shown) <= 20)
