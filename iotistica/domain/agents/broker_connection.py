"""The MQTT connection settings that an agent receives: the broker's address, its account and its topics."""

from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId, agent_topic, agent_user
from iotistica.domain.names import composed

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class BrokerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address of the broker; `ca` is the PEM of its CA certificate, unless a public CA signed it."""

    protocol: str
    host: str
    port: int
    ca: str | None = None

    @property
    def url(self) -> str:
        """The address as a URL, with the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The broker configuration in the agent's format; times in ms, but `keep_alive` in s."""

    protocol: str
    host: str
    port: int
    username: str
    password: str
    use_tls: bool
    verify_certificate: bool
    client_id_prefix: str
    keep_alive: int
    clean_session: bool
    reconnect_period: int
    connect_timeout: int
    ca_cert: str | None = None


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """The topic filters that an agent can publish and subscribe to."""

    publish: list[str]
    subscribe: list[str]


class MqttConnection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent's broker account, the broker's address and the agent's topics."""

    username: str
    password: str
    broker: str
    broker_config: BrokerConfig
    topics: Topics


def parse_broker_url(url: str, ca: str | None) -> BrokerAddress:
    """Return the address in a URL such as `mqtts://mqtt.example.com:8883`; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"must be {', '.join(PORTS)} followed by ://host:port")
    return BrokerAddress(protocol=parts.scheme, host=parts.hostname, port=parts.port or PORTS[parts.scheme], ca=ca)


def mqtt_connection(where: BrokerAddress, tenant: TenantId, agent: UUID, password: str) -> MqttConnection:
    """Return what an agent needs to connect to the broker."""
    user, topic = agent_user(tenant, agent), agent_topic(tenant, agent)
    return MqttConnection(
        username=user,
        password=password,
        broker=where.url,
        broker_config=BrokerConfig(
            protocol=where.protocol,
            host=where.host,
            port=where.port,
            username=user,
            password=password,
            use_tls=where.protocol in ("mqtts", "wss"),
            verify_certificate=True,
            client_id_prefix="iotistica",
            keep_alive=60,
            clean_session=True,
            reconnect_period=1000,
            connect_timeout=30_000,
            ca_cert=where.ca,
        ),
        topics=Topics(publish=[f"{topic}/#"], subscribe=[f"{topic}/#"]),
    )


def printable(text: str | None, longest: int) -> str | None:
    """Return an agent's text without unprintable characters, since terminals and web pages show it.

    At most `longest` characters; None if nothing is left.
    """
    shown = composed((text or "")[: longest * 2])
    cleaned = "".join(c for c in shown if c.isprintable())[:longest].strip()
    return cleaned or None
