"""Documents of others: compared, cleaned, and with their secrets kept."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain import documents
from iotistica.domain.access import document_secrets
from iotistica.domain.access.document_secrets import MASK, SecretBox
from iotistica.domain.documents import differences
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid

TENANT, OTHER = TenantId("a1b2c3d4e5f6"), TenantId("b1b2c3d4e5f6")
BOX = SecretBox(bytes(32))
NAMES = st.sampled_from(("password", "environment", "name", "url", "services", "connectionString", "port", "uuid"))
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("mqtt://me:pw@host")
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=12
)
TARGET = {
    "apps": {"1": {"services": [{"serviceId": 1, "config": {"environment": {"A": "aaa"}, "ports": ["80:80"]}}]}},
    "config": {
        "endpoints": [
            {"name": "plc", "connection": {"host": "h", "password": "hunter2"}},
            {"name": "echo", "connectionString": '{"host":"h","password":"hunter2"}'},
            {"name": "url", "connection": {"brokerUrl": "mqtt://me:hunter2@broker"}},
        ]
    },
}


def change(path: str, old: Any, new: Any) -> dict[str, Any]:
    return {"path": path, "before": old, "after": new}


def test_a_comparison_names_what_changed_by_what_it_is_called() -> None:
    """The member of a list keeps its name when it changes its place."""
    old = {"endpoints": [{"name": "a", "poll": 1}, {"name": "b", "poll": 1}], "level": "info", "tags": [1, 2]}
    new = {"endpoints": [{"name": "b", "poll": 5}, {"name": "c"}], "level": "info", "tags": [1, 3]}
    found = {one.path: one for one in differences(old, new)}
    assert set(found) == {"endpoints[a]", "endpoints[b].poll", "endpoints[c]", "tags[1]"}
    assert (found["endpoints[b].poll"].before, found["endpoints[b].poll"].after) == (1, 5)
    assert (found["endpoints[a]"].before, found["tags[1]"].after) == ({"name": "a", "poll": 1}, 3)


@given(DOCUMENTS, DOCUMENTS)
def test_only_what_is_alike_has_no_differences(old: Any, new: Any) -> None:
    """A comparison of two documents is empty exactly if they are the same."""
    assert (differences(old, new) == []) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))


def test_a_comparison_is_bounded() -> None:
    """In number, and in the size of what it shows."""
    assert len(differences({}, {str(n): n for n in range(1000)})) == documents.MOST
    assert differences({}, {"a": "x" * 5000})[0].after == "(5002 bytes)"


def test_what_is_kept_can_be_kept() -> None:
    """No NUL, no infinity, no number beyond 64 bits, no bottomless nesting."""
    deep: Any = "end"
    for _ in range(40):
        deep = [deep]
    cleaned = documents.clean({"a\0": "b\0", "inf": math.inf, "big": 1 << 70, "deep": deep, "half": "\ud800"})
    assert (cleaned["a"], cleaned["inf"], cleaned["big"], cleaned["half"]) == (
        "b",
        "inf",
        str(1 << 70),
        "?",
    )
    assert "too deep" in json.dumps(cleaned["deep"])


@given(DOCUMENTS)
def test_what_is_sealed_is_opened_again_and_shows_nothing(document: Any) -> None:
    """Opened it is the same, sealed again it is sealed alike, and masked it is the same before and after."""
    sealed = BOX.seal(document, TENANT)
    assert BOX.open(sealed, TENANT) == document
    assert BOX.seal(document, TENANT) == sealed
    assert document_secrets.mask(document_secrets.mask(document)) == document_secrets.mask(document)
    assert document_secrets.keep_masked(document_secrets.mask(document), document) == document


def test_every_kind_of_secret_is_found_and_nothing_else() -> None:
    """Passwords by name, environments whole, log-ins in addresses, and connections that are texts of JSON."""
    sealed = json.dumps(BOX.seal(TARGET, TENANT))
    assert "hunter2" not in sealed
    assert "aaa" not in sealed
    masked = document_secrets.mask(BOX.seal(TARGET, TENANT))
    (plc, echo, url) = masked["config"]["endpoints"]
    assert plc == {"name": "plc", "connection": {"host": "h", "password": MASK}}
    assert "hunter2" not in str(echo)
    assert url["connection"]["brokerUrl"] == MASK
    assert masked["apps"]["1"]["services"][0]["config"] == {"environment": {"A": MASK}, "ports": ["80:80"]}


def test_another_tenant_or_key_opens_nothing() -> None:
    """What is sealed for one tenant is a mask to every other."""
    sealed = BOX.seal(TARGET, TENANT)
    for opened in (BOX.open(sealed, OTHER), SecretBox(b"1" * 32).open(sealed, TENANT)):
        assert opened["config"]["endpoints"][0]["connection"]["password"] == MASK


def test_a_mask_written_back_keeps_the_secret_and_elsewhere_is_an_error() -> None:
    """Who reads a document without its secrets can change it and write it back."""
    shown = document_secrets.mask(TARGET)
    shown["config"]["endpoints"].reverse()
    back = document_secrets.keep_masked(shown, TARGET)
    assert back["config"]["endpoints"][2] == TARGET["config"]["endpoints"][0]  # type: ignore[index]
    shown["config"]["endpoints"][2]["name"] = "another"
    with pytest.raises(Invalid) as refused:
        document_secrets.keep_masked(shown, TARGET)
    assert refused.value.path == "config.endpoints[another].connection.password"


def test_a_mask_stands_only_for_what_stands_at_its_own_place() -> None:
    """A key with a dot in it is another place, where the secret would be shown."""
    old = {"config": {"environment": {"FOO": "hunter2"}}}
    with pytest.raises(Invalid):
        document_secrets.keep_masked({"config": {"environment.FOO": MASK}}, old)


def test_numbers_are_secrets_too() -> None:
    """A PIN is sealed, masked and kept as the number that it is; a switch is none."""
    document = {"environment": {"PIN": 4711, "RATE": 1.5, "DEBUG": True}, "connection": {"password": 1234567}}
    sealed = BOX.seal(document, TENANT)
    assert "4711" not in json.dumps(sealed)
    assert "1234567" not in json.dumps(sealed)
    assert BOX.open(sealed, TENANT) == document
    masked = document_secrets.mask(sealed)
    assert masked["environment"] == {"PIN": MASK, "RATE": MASK, "DEBUG": True}
    assert document_secrets.keep_masked(masked, document) == document


@pytest.mark.parametrize("name", ["authKey", "privKey", "priv_key", "psk", "passcode", "sharedKey", "signing_key"])
def test_keys_by_their_other_names_are_secrets(name: str) -> None:
    """As SNMP, cloud brokers and others call them."""
    assert document_secrets.mask({name: "hunter2"}) == {name: MASK}
    assert document_secrets.mask({"keyboard": "de", "monkey": 1, "authorized": "x"}) == {
        "keyboard": "de",
        "monkey": 1,
        "authorized": "x",
    }


@pytest.mark.parametrize("text", ["://" + ":" * 1_000_000, "://a" * 250_000, "://" + "@" * 1_000_000])
def test_a_long_text_is_looked_through_once(text: str) -> None:
    """One that makes a pattern try every beginning with every end would take hours here."""
    assert document_secrets.mask({"a": text}) == {"a": text}
    assert document_secrets.mask({"a": text + " amqp://u:p@h"}) == {"a": MASK}


def test_a_connection_that_is_too_deep_is_a_secret_as_a_whole() -> None:
    """The text of JSON inside a document is none of the levels that were counted."""
    text = '{"a":' + "[" * 400 + "]" * 400 + "}"
    document = {"connectionString": text}
    assert document_secrets.mask(document) == {"connectionString": MASK}
    assert BOX.open(BOX.seal(document, TENANT), TENANT) == document


def test_a_comparison_takes_a_bounded_room() -> None:
    """However long the keys are, and however many changes there are."""
    key = "k" * 900_000
    old = {key: {str(n): n for n in range(100)}}
    new = {key: {str(n): n + 1 for n in range(100)}}
    assert len(json.dumps([c.path for c in documents.differences(old, new)])) < 100_000
    many = documents.differences({}, {f"key {n}": "x" * 1000 for n in range(100)})
    assert sum(len(json.dumps(c.after)) for c in many) < 40_000
    assert "more" in many[-1].after


def test_a_document_of_too_many_values_is_known_before_it_is_looked_at() -> None:
    """In breadth and in depth."""
    assert not documents.is_large({"a": [1] * 1000})
    assert documents.is_large([[] for _ in range(documents.VALUES + 1)])
    assert documents.is_deep([[[[]]]], deepest=2)
    assert not documents.is_deep([[[1]], 2], deepest=2)


def test_a_connection_that_is_shown_as_a_mask_is_kept_when_that_comes_back() -> None:
    """It was sealed as a whole, and its mask stands for the whole."""
    document = {"config": {"endpoints": [{"name": "plc", "connectionString": '{"host":"h","password":"hunter2"}'}]}}
    shown = document_secrets.mask(BOX.seal(document, TENANT))
    assert shown["config"]["endpoints"][0]["connectionString"] == MASK
    assert document_secrets.keep_masked(shown, document) == document
    assert document_secrets.keep_masked(document_secrets.mask(document), document) == document
