"""Compacted payloads expand to the original fields; an ambiguous field is left out, never guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.delivery import key_compaction
from iotistica.domain.delivery.envelopes import parse_readings
from iotistica.domain.delivery.key_compaction import (
    NAMES_LIMIT,
    Dictionary,
    Expander,
    NeedsDictionary,
    merged,
    parse_update,
    version_of,
)
from iotistica.errors import InvalidMessage

DOMAIN = {
    "deviceName": "device",
    "deviceId": "device",
    "device_uuid": "device",
    "unit": "unit",
    "quality": "quality",
}
QUALITY = {"GOOD": 1, "BAD": 2, "UNCERTAIN": 3, "NOT_CONNECTED": 4}


class Compactor:
    """The agent's side: it assigns indices per domain when it first sees a field, and flattens objects."""

    def __init__(self) -> None:
        self.domains: dict[str, dict[str, int]] = {d: {} for d in ("key", "metric", "unit", "quality", "device")}
        self.metrics: dict[str, int] = {}
        self.devices: dict[str, int] = {}

    def index(self, path: str) -> int:
        name = path.rpartition(".")[2]
        domain = DOMAIN.get(name, "quality" if "status" in name else "key")
        if "[]" not in path:
            domain = "metric"
        indices = self.domains[domain]
        return indices.setdefault(path, len(indices))

    def pairs(self, value: dict[str, Any], prefix: str = "") -> list[Any]:
        out: list[Any] = []
        for key, item in value.items():
            path = f"{prefix}{key}"
            if isinstance(item, list):
                out.append(["a", key, [self.pairs(inner, f"{path}[].") for inner in item]])
            elif isinstance(item, dict):
                out += self.pairs(item, f"{path}.")
            else:
                out.append([self.index(path), self.coded(key, item)])
        return out

    def coded(self, key: str, value: Any) -> Any:
        table = {"quality": QUALITY, "metric": self.metrics, "deviceName": self.devices}.get(key, {})
        return table.get(value, value) if isinstance(value, str) else value

    def payload(self, envelope: dict[str, Any]) -> dict[str, Any]:
        return {"v": 3, "p": self.pairs(envelope)}

    def dictionary(self) -> dict[str, Any]:
        fields = {d: [{"index": i, "name": n} for n, i in names.items()] for d, names in self.domains.items()}
        return {
            "version": 3,
            "fieldsByDomain": fields,
            "enums": {"quality": QUALITY, "unit": {}},
            "metrics": {"modbus": self.metrics},
            "devices": {"modbus": self.devices},
        }


text = st.text("abcdef-", min_size=1, max_size=8)
optional: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": text,
    "deviceName": text,
    "deviceId": text,
    "endpoint_uuid": text,
    "device_uuid": text,
    "protocol": st.just("modbus"),
    "metric": text,
    "value": st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), text),
    "unit": text,
    "quality": st.sampled_from([*QUALITY, "odd"]),
    "pointIdentity": st.fixed_dictionaries({"normalizedName": text, "rawName": text}),
    "dataQuality": st.fixed_dictionaries({"status": text, "checks": st.fixed_dictionaries({"status": text})}),
}
# In the order in which agents write them; only the order distinguishes fields with equal indices.
readings = (
    st.sets(st.sampled_from(list(optional)))
    .flatmap(lambda keys: st.fixed_dictionaries({key: optional[key] for key in keys}))
    .map(lambda fields: {key: fields[key] for key in optional if key in fields})
)
CORE = [key for key in optional if key not in ("pointIdentity", "dataQuality")]


@given(st.lists(readings, min_size=1, max_size=6), st.data())
def test_what_is_written_out_is_what_was_compacted(sent: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whatever fields are missing, each expanded field has the value sent; complete readings come back complete."""
    agent = Compactor()
    full = {key: data.draw(strategy) for key, strategy in optional.items()}
    agent.metrics = {full["metric"]: 1}
    agent.devices = {full["deviceName"]: 1}
    envelope = {"timestamp": "t", "protocol": "modbus", "messages": [{"timestamp": "m", "readings": [full, *sent]}]}
    payload = agent.payload(envelope | {"msgId": "id"})
    got = Expander(3, parse_update(agent.dictionary()).dictionary).expand(payload, "other")
    assert {key: got[key] for key in ("timestamp", "protocol", "msgId")} == {
        "timestamp": "t",
        "protocol": "modbus",
        "msgId": "id",
    }
    (message,) = got["messages"]
    assert message["timestamp"] == "m"
    first, *others = message["readings"]
    assert first == {key: full[key] for key in CORE}
    for before, after in zip(sent, others, strict=True):
        for key, value in after.items():
            is_left_out = key == "quality" and value == "unknown"
            assert is_left_out or before.get(key, "absent") == value, (before, after)


def test_what_may_be_two_things_is_left_out() -> None:
    """An index that can be the endpoint's or the device's id, or a unit or a quality, is left out."""
    agent = Compactor()
    whole = {"endpoint_uuid": "e", "device_uuid": "d", "metric": "m", "value": 1, "unit": "V", "quality": "GOOD"}
    agent.index("messages[].readings[].deviceName")
    agent.index("messages[].readings[].deviceId")
    for key in ("timestamp", "timestamp2"):
        agent.index(f"messages[].readings[].{key}")
    agent.pairs({"messages": [{"readings": [whole]}]})
    odd = {"endpoint_uuid": "e", "metric": "m", "value": 1, "unit": "V"}
    payload = agent.payload({"messages": [{"readings": [odd]}]})
    (message,) = Expander(3, parse_update(agent.dictionary()).dictionary).expand(payload, "modbus")["messages"]
    assert message["readings"] == [{"metric": "m", "value": 1, "quality": "unknown"}]


def test_an_unknown_index_or_name_waits_for_more() -> None:
    """An index of a field or of a value that is missing from the dictionary raises `NeedsDictionary`."""
    agent = Compactor()
    reading = {"metric": "m", "value": 1, "unit": "V", "quality": "GOOD"}
    envelope = {"messages": [{"readings": [reading]}]}
    agent.pairs(envelope)
    known = parse_update(agent.dictionary()).dictionary
    more = agent.payload({"messages": [{"readings": [reading | {"new": 1}]}]})
    with pytest.raises(NeedsDictionary):
        Expander(3, known).expand(more, "modbus")
    agent.metrics = {"m": 1}
    named = agent.payload(envelope)
    with pytest.raises(NeedsDictionary):
        Expander(3, known).expand(named, "modbus")
    delta = {"version": 3, "newFields": [], "newFieldsWithDomains": [], "metrics": {"modbus": {"m": 1}}}
    both = merged(known, parse_update(delta).dictionary)
    assert Expander(3, both).expand(named, "modbus")["messages"][0]["readings"][0]["metric"] == "m"


def test_a_root_array_and_the_legacy_form() -> None:
    """The expander accepts a bare list of readings, and parallel lists of indices and values."""
    fields = [{"index": 0, "name": "[].metric", "domain": "key"}, {"index": 1, "name": "[].value", "domain": "key"}]
    flat = [{"index": 5, "name": "metric", "domain": "key"}, {"index": 6, "name": "value", "domain": "key"}]
    known = parse_update({"version": 1, "newFieldsWithDomains": fields + flat}).dictionary
    payload = b'{"v":1,"p":[["a","$root",[[[0,"m"],[1,2.5]],[[0,"n"],[1,3]]]]]}'
    expanders = {1: Expander(1, known)}

    def values(payload: bytes) -> list[tuple[str, float | None]]:
        parsed = parse_readings(payload, protocol="x", received=10**15, retention_us=10**15, expanders=expanders)
        return [(reading.metric_name, reading.value) for reading in parsed.readings]

    assert values(payload) == [("m", 2.5), ("n", 3.0)]
    assert values(b'{"v":1,"i":[5,6],"d":["p",4]}') == [("p", 4.0)]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"version": "1"},
        {"version": -1},
        {"version": 1, "fieldsByDomain": {"nonsense": []}},
        {"version": 1, "fieldsByDomain": {"key": [{"index": "0", "name": "x"}]}},
        {"version": 1, "metrics": {"modbus": {"x" * 600: 1}}},
        {"version": 1, "metrics": {"modbus": {str(n): n for n in range(NAMES_LIMIT + 1)}}},
        {"version": 1, "enums": []},
    ],
)
def test_a_bad_dictionary_is_refused_with_the_reason(document: object) -> None:
    """A malformed dictionary, or one above a limit, raises `bad_dictionary`."""
    with pytest.raises(InvalidMessage, match="bad_dictionary"):
        parse_update(document)


@pytest.mark.parametrize(
    "pairs",
    [
        b"[1]",
        b"[[0,1,2,3]]",
        b'[["a","messages",[1]]]',
        b'[["a","messages",[[["a","readings",[[["x",1]]]]]]]]',
        b"[[[]]]",
    ],
)
def test_bad_pairs_are_refused(pairs: bytes) -> None:
    """Lists that are not pairs raise an error that affects only their own message."""
    expanders = {1: Expander(1, Dictionary(fields={"metric": {0: "timestamp"}}))}
    with pytest.raises((InvalidMessage, NeedsDictionary)):
        parse_readings(
            b'{"v":1,"p":%s}' % pairs, protocol="x", received=10**15, retention_us=10**15, expanders=expanders
        )


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), text), lambda inner: st.lists(inner, max_size=4)
    )
)
def test_nothing_makes_the_expander_fail_otherwise(pairs: Any) -> None:
    """Any value in place of the pairs results in an envelope or in one of the two expected errors."""
    known = Dictionary(fields={"metric": {0: "timestamp"}, "key": {0: "messages[].timestamp"}})
    root = {"v": 1, "p": pairs}
    if key_compaction.version_of(root) is None:
        return
    try:
        Expander(1, known).expand(root, "x")
    except (InvalidMessage, NeedsDictionary):
        return


def test_what_is_compacted_is_told_by_its_shape() -> None:
    """A payload needs a version and pairs: a version alone, or another document with a `v`, is not compacted."""
    assert version_of({"v": 2, "p": []}) == 2
    assert version_of({"v": 2, "i": [], "d": []}) == 2
    root: object
    for root in ({"v": 2}, {"v": "2", "p": []}, {"p": []}, [], {"v": 2, "p": 1}):
        assert version_of(root) is None


def test_no_payload_costs_more_than_it_may() -> None:
    """100,000 pairs, 24,000 different shapes or a million objects are refused early."""
    fields = {"key": {n: f"messages[].x{n}" for n in range(300)} | {400: "messages[].metric"}}
    expander = Expander(1, Dictionary(fields=fields))
    one_object = [[n % 300, n] for n in range(100_000)]
    different = [[[n % 300, 1], [n // 300 % 300, "x"]] for n in range(24_000)]
    many_objects = [[[1, 1]]] * 1_000_000
    for items in ([one_object], different, many_objects):
        with pytest.raises(InvalidMessage, match="bad_compaction"):
            expander.expand({"v": 1, "p": [["a", "messages", items]]}, "x")
    assert len(expander._shapes) <= key_compaction.SHAPES_LIMIT
