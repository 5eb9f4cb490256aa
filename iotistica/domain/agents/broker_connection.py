"""What an agent is told of the broker."""

from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId, agent_topic, agent_user

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class BrokerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where agents find it; `ca` is the PEM of who signed its certificate, if that is not publicly known."""

    protocol: str
    host: str
    port: int
    ca: str | None = None


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """As the agent reads it; times in ms, but `keep_alive` in s."""

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
    publish: list[str]
    subscribe: list[str]


class MqttConnection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent's account, where to use it, and for which topics."""

    username: str
    password: str
    broker: str
    broker_config: BrokerConfig
    topics: Topics


def parse_broker_url(url: str, ca: str | None) -> BrokerAddress:
    """The broker of a URL such as `mqtts://mqtt.example.com:8883`; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"needs to be one of {', '.join(PORTS)}, then ://host:port")
    return BrokerAddress(protocol=parts.scheme, host=parts.hostname, port=parts.port or PORTS[parts.scheme], ca=ca)


def mqtt_connection(where: BrokerAddress, tenant: TenantId, agent: UUID, password: str) -> MqttConnection:
    """What an agent needs to connect."""
    user, topic = agent_user(tenant, agent), agent_topic(tenant, agent)
    host = f"[{where.host}]" if ":" in where.host else where.host
    return MqttConnection(
        username=user,
        password=password,
        broker=f"{where.protocol}://{host}:{where.port}",
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
    """Text that a device wrote, without what does not print: it is shown in terminals and pages."""
    shown = "".join(c for c in (text or "")[: longest * 2] if c.isprintable())[:longest].strip()
    return shown or None
