"""What we lean on inside gmqtt, and the parser that stands in for a part of it."""

import inspect
from typing import Any

import gmqtt
import pytest
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol
from hypothesis import given
from hypothesis import strategies as st

from iotistica.mqtt.protocol import PAUSE_BYTES, Protocol, publish_packet


def test_gmqtt_is_built_as_the_client_expects() -> None:
    """A release of gmqtt that moves these must fail here, not in production.

    `iotistica/mqtt/client.py` and `iotistica/mqtt/protocol.py` depend on them.
    """
    create = inspect.signature(gmqtt.Client._create_connection)
    assert list(create.parameters) == ["self", "host", "port", "ssl", "clean_session", "keepalive"]
    made = inspect.signature(MQTTConnection.__init__)
    assert list(made.parameters) == [
        *("self", "transport", "protocol", "clean_session", "keepalive", "package_handler", "logger"),
    ]
    assert list(inspect.signature(MQTTProtocol.__init__).parameters) == [
        *("self", "args", "connection_state", "id_generator", "kwargs"),
    ]
    for name in ("_exit_reconnecting_state", "reconnect", "_disconnect"):
        assert callable(getattr(gmqtt.Client, name))
    for name in ("_keep_connection", "put_package", "is_closing"):
        assert callable(getattr(MQTTConnection, name))
    assert callable(BaseMQTTProtocol.connection_made)
    assert callable(BaseMQTTProtocol.write_data)
    source = inspect.getsource(MQTTConnection)
    for field in ("_last_data_in", "_keep_connection_callback", "_protocol"):
        assert field in source
    client = gmqtt.Client("id", clean_session=False, optimistic_acknowledgement=False)
    assert isinstance(client._package_handler, MqttPackageHandler)
    assert client._package_handler.id_generator is not None
    assert client._connack_received is not None
    assert client._connection_lost is not None
    assert client._connection is None
    assert client._connection_state is not None
    assert MQTTConnectError(135)._code == 135
    assert gmqtt.Subscription("a", qos=1, no_local=True, retain_handling_options=1).qos == 1


async def test_a_protocol_of_gmqtt_has_its_transport_and_connection() -> None:
    """`iotistica/mqtt/protocol.py` writes to the one and passes packets to the other."""
    client = gmqtt.Client("id")
    made = MQTTProtocol(
        connection_state=client._connection_state, id_generator=client._package_handler.id_generator
    )
    assert {"_transport", "_connection"} <= set(vars(made)), "gmqtt changed: adapt iotistica/mqtt/protocol.py"


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Connection:
    _last_data_in = _last_data_out = 0.0

    def __init__(self) -> None:
        self.packages: list[Any] = []

    def put_package(self, package: Any) -> None:
        self.packages.append(package)


def protocol() -> Protocol:
    made = Protocol.__new__(Protocol)
    from collections import deque

    made.inbox, made.inbox_bytes, made.acks, made._tail = deque(), 0, {}, b""
    made.paused = made.lost = False
    made.arrived = type("Event", (), {"set": lambda self: None, "clear": lambda self: None})()
    made._connection, made._transport = Connection(), Transport()
    return made


messages = st.lists(
    st.tuples(st.integers(1, 0xFFFF), st.text("abc/", min_size=1, max_size=200), st.binary(max_size=300)),
    max_size=8,
)


@given(messages, st.lists(st.integers(1, 400), max_size=30))
def test_messages_survive_any_cut_of_the_stream(sent: list[tuple[int, str, bytes]], cuts: list[int]) -> None:
    """TCP keeps no borders: wherever reads end, the same messages come out, in order."""
    stream = b"".join(publish_packet(topic.encode(), payload, mid) for mid, topic, payload in sent)
    stream += b"\xd0\x00"
    reader = protocol()
    for cut in cuts:
        if stream[:cut]:
            reader.data_received(stream[:cut])
        stream = stream[cut:]
    reader.data_received(stream)
    got = []
    while reader.inbox:
        got += reader.take()
    assert got == [(mid, topic.encode(), payload) for mid, topic, payload in sent]
    assert len(reader._connection.packages) == 1
    reader.write_pubacks(mid for mid, _, _ in got)
    assert reader._transport.written == b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid, _, _ in sent)


def test_properties_of_any_length_are_skipped() -> None:
    """User properties of more than 127 bytes make their length two bytes long."""
    for size in (0, 5, 127, 128, 300):
        properties = (
            b"\x26\x00\x01k" + (size - 6).to_bytes(2, "big") + b"v" * (size - 6) if size > 6 else b"\x01\0" * 0
        )
        length = (
            bytes([len(properties)])
            if len(properties) < 128
            else bytes([len(properties) & 0x7F | 0x80, len(properties) >> 7])
        )
        body = b"\0\1t\0\7" + length + properties + b"payload"
        head = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
        reader = protocol()
        reader.data_received(b"\x33" + head + body)
        assert reader.take() == [(7, b"t", b"payload")]


def test_reading_pauses_while_too_much_waits_and_goes_on_after() -> None:
    """What is not taken stays with the broker instead of in our memory."""
    reader = protocol()
    packet = publish_packet(b"t", b"x" * (PAUSE_BYTES // 4), 1)
    for _ in range(5):
        reader.data_received(packet)
    assert not reader._transport.reading
    while reader.inbox:
        reader.take()
    assert reader._transport.reading


@pytest.mark.parametrize("code", [b"", b"\x00", b"\x10"])
def test_a_puback_ends_the_publish_it_is_of(code: bytes) -> None:
    """With or without a reason code; 0x10 means that nobody listens, which is no failure."""

    class Future:
        result: object = "open"

        def done(self) -> bool:
            return False

        def set_result(self, value: object) -> None:
            self.result = value

    reader, future = protocol(), Future()
    reader.acks[9] = future  # type: ignore[assignment]
    reader.data_received(b"\x40" + bytes([2 + len(code)]) + b"\0\x09" + code)
    assert future.result is None
    assert reader.acks == {}
