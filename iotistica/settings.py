"""All settings with their defaults and meanings."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from iotistica.domain.agents.broker_connection import BrokerAddress, parse_broker_url
from iotistica.domain.delivery.worker_scaling import PROFILES, Profile, ProfileName
from iotistica.errors import CannotStart

PREFIX = "IOTISTICA_"
SECRET = frozenset({"admin_password", "secret_key", "broker_secret", "update_secret"})
LOCAL_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 a lookup, no bind
"""The address on this machine of a server that listens on all addresses."""
URLS = frozenset({"database_url", "redis_url", "mqtt_url", "smtp_url"})

Port = Annotated[int, Meta(ge=1, le=65535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a process; a field's environment variable is `IOTISTICA_` and its name in capitals."""

    database_url: Annotated[str, Meta(description="PostgreSQL 15 to 18; empty: the built-in PostgreSQL")] = ""
    redis_url: Annotated[str, Meta(description="Redis 6.2+ or Valkey; empty: the built-in Redis")] = ""
    mqtt_url: Annotated[
        str, Meta(description="mqtt://user:password@host:port of the broker; empty: the embedded Mosquitto")
    ] = ""
    data_dir: Annotated[str, Meta(description="folder of the built-in servers' data and the keys")] = ".iotistica"
    listen: Annotated[str, Meta(description="address of HTTP and MQTT; 0.0.0.0 lets other machines connect")] = (
        "127.0.0.1"
    )
    public_host: Annotated[str, Meta(description="host name that agents connect to; empty: the listen address")] = (
        ""
    )
    http_port: Annotated[Port, Meta(description="port of the REST API")] = 3002
    ops_port: Annotated[
        Port, Meta(description="port for health and metrics in a process without the role http")
    ] = 3003
    mqtt_port: Annotated[Port, Meta(description="port of the embedded Mosquitto")] = 1883
    admin_email: Annotated[
        str,
        Meta(
            pattern=r"^[^@\s]+@[^@\s]+$", description="e-mail address of the first owner, in the tenant `default`"
        ),
    ] = "admin@localhost"
    admin_password: Annotated[
        str, Meta(description="password of the first owner; empty: generated and printed once")
    ] = ""
    secret_key: Annotated[
        str,
        Meta(description="the server's key, 64 hex characters; empty: `server.key` in the data folder"),
    ] = ""
    site_url: Annotated[
        str, Meta(description="URL of the dashboard, for links in invitations; empty: public host and HTTP port")
    ] = ""
    agents_mqtt_url: Annotated[
        str,
        Meta(description="broker URL sent to agents, such as mqtts://host:8883; empty: public host and MQTT port"),
    ] = ""
    agents_ca_file: Annotated[
        str, Meta(description="PEM with the broker's CA certificate, sent to agents; empty: a public CA signed it")
    ] = ""
    token_key_file: Annotated[
        str,
        Meta(description="PEM with RSA keys: the first signs access tokens (RS256, JWKS), the others only verify"),
    ] = ""
    broker_secret: Annotated[
        str, Meta(description="secret of an external broker that calls /mosquitto-auth/*; empty: routes are off")
    ] = ""
    update_secret: Annotated[
        str,
        Meta(description="the agents' UPDATE_COMMAND_SECRET, which signs update commands; empty: unsigned"),
    ] = ""
    cors_origins: Annotated[
        str,
        Meta(
            description="origins of other dashboards that may call the API from a browser, such as"
            " https://plant.example, separated by commas; empty: none"
        ),
    ] = ""
    trusted_proxies: Annotated[
        str, Meta(description="addresses of proxies whose X-Forwarded-For is trusted, separated by commas")
    ] = ""
    registration_tenant: Annotated[
        str, Meta(description="tenant in which anyone can register as a viewer; empty: by invitation only")
    ] = ""
    login_limit: Annotated[
        int,
        Meta(
            ge=1,
            description="log-ins a minute from one address; refused registrations: 3 times, wrong tokens: 30 times",
        ),
    ] = 10
    user_limit: Annotated[int, Meta(ge=1, description="requests a minute of one user or API key")] = 1000
    admin_limit: Annotated[
        int, Meta(ge=1, description="requests a minute of one user or API key for administration")
    ] = 100
    agent_limit: Annotated[int, Meta(ge=1, description="requests a minute of one agent")] = 10_000
    session_days: Annotated[int, Meta(ge=1, le=365, description="days for which a session can be refreshed")] = 30
    key_grace_hours: Annotated[
        float, Meta(ge=0, le=720, description="hours that an agent's old key stays valid after a rotation")
    ] = 168.0
    log_level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="lowest level that is logged")
    ] = "INFO"
    log_format: Annotated[Literal["text", "json"], Meta(description="text for people, json for log collectors")] = (
        "text"
    )
    ingest_profile: Annotated[
        ProfileName, Meta(description="balanced, batch (fewer, larger transactions) or streaming (lowest latency)")
    ] = "balanced"
    ingest_workers: Annotated[
        int, Meta(ge=0, le=32, description="minimum number of consumers that store readings; 0: the profile's")
    ] = 0
    ingest_workers_most: Annotated[
        int, Meta(ge=0, le=32, description="maximum number of such consumers; 0: the profile's")
    ] = 0
    ingest_batch: Annotated[
        int, Meta(ge=0, le=50_000, description="messages that a consumer reads at a time; 0: the profile's")
    ] = 0
    stream_mark: Annotated[
        int,
        Meta(
            ge=100,
            description="high-water mark of a stream, in entries; above it messages go to the spool",
        ),
    ] = 100_000
    spool_dir: Annotated[
        str, Meta(description="folder for messages while Redis is unavailable; empty: `spool` in the data folder")
    ] = ""
    spool_mb: Annotated[
        int,
        Meta(ge=16, description="maximum size in MiB of each spool, one for MQTT and one for HTTP; at least 16"),
    ] = 1024
    broker_queue_mb: Annotated[
        int,
        Meta(
            ge=16,
            description="MiB that the embedded Mosquitto queues for one absent client; at least 16",
        ),
    ] = 256
    webhook_allow: Annotated[
        str,
        Meta(description="private networks that webhooks may call, such as 10.1.0.0/16, separated by commas"),
    ] = ""
    smtp_url: Annotated[
        str,
        Meta(
            description="server of e-mails about incidents: smtp://user:password@host:587, or smtps:// for TLS from"
            " the start; empty: no e-mail"
        ),
    ] = ""
    smtp_from: Annotated[str, Meta(description="sender of e-mails; empty: iotistica@ and the public host")] = ""
    apprise: Annotated[
        bool,
        Meta(
            description="allow targets of Apprise (Slack, Teams, Telegram, ntfy, …), which are not kept out of"
            " private networks; needs the extra `apprise`"
        ),
    ] = False
    retention_days: Annotated[int, Meta(ge=1, le=36_500, description="days until readings are deleted")] = 730
    minutes_days: Annotated[
        int, Meta(ge=1, le=36_500, description="days until minute rollups are deleted, a month at a time")
    ] = 400
    hours_days: Annotated[
        int,
        Meta(
            ge=1,
            le=36_500,
            description="days until hour rollups are deleted, a year at a time; not before readings",
        ),
    ] = 3650
    budget_gb: Annotated[
        float,
        Meta(ge=0, description="GB for readings and rollups, above which the oldest days are deleted; 0: no limit"),
    ] = 0.0
    disk_reserve_mb: Annotated[
        int, Meta(ge=0, description="MiB of the built-in PostgreSQL's disk to keep free of readings; 0: 3 % of it")
    ] = 0
    offline_minutes: Annotated[
        float,
        Meta(ge=0.1, le=1440, description="minutes without a message until an agent is offline; at least 0.1"),
    ] = 5.0
    compress_days: Annotated[
        int, Meta(ge=1, le=36_500, description="days until TimescaleDB compresses readings")
    ] = 7
    query_seconds: Annotated[float, Meta(gt=0, le=600, description="maximum duration of a query in seconds")] = 15.0
    drain_seconds: Annotated[
        float, Meta(gt=0, le=600, description="seconds that a stop waits for work in progress")
    ] = 10.0

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().absolute()

    @property
    def spool_path(self) -> Path:
        return Path(self.spool_dir).expanduser().absolute() if self.spool_dir else self.data_path / "spool"

    @property
    def profile(self) -> Profile:
        """The ingest profile, changed by the settings that override it; raises `CannotStart`."""
        profile = PROFILES[self.ingest_profile]
        least = self.ingest_workers or profile.least
        if 0 < self.ingest_workers_most < least:
            most = self.ingest_workers_most
            raise CannotStart(f"IOTISTICA_INGEST_WORKERS_MOST must be at least {least}, the minimum; it is {most}")
        return msgspec.structs.replace(
            profile,
            least=least,
            most=max(self.ingest_workers_most or profile.most, least),
            messages=self.ingest_batch or profile.messages,
        )

    @property
    def local_host(self) -> str:
        """The address at which clients on this machine reach a server that listens on `listen`."""
        return LOCAL_HOSTS.get(self.listen, self.listen)

    @property
    def agents_host(self) -> str:
        """The host name that agents and users connect to."""
        return self.public_host or self.local_host

    @property
    def http_url(self) -> str:
        """The URL of the HTTP port, without a proxy that may be in front of it."""
        return f"http://{in_url(self.agents_host)}:{self.http_port}"

    @property
    def local_http_url(self) -> str:
        """The URL of the HTTP port for clients on this machine."""
        return f"http://{in_url(self.local_host)}:{self.http_port}"

    @property
    def site(self) -> str:
        """The URL of the dashboard for users."""
        return self.site_url.rstrip("/") or self.http_url

    def login_url(self, token: str) -> str:
        """Return the link to the dashboard that logs in once; browsers do not send what follows the `#`."""
        return f"{self.site}/login#token={token}"

    @property
    def lacks_public_host(self) -> bool:
        """Whether other machines can connect, but are told an address that only this machine can reach."""
        told = self.agents_mqtt_url and self.site_url
        return self.listen in LOCAL_HOSTS and not (self.public_host or told)

    def shareable(self) -> dict[str, Any]:
        """Return the settings that commands for this instance need: those without secrets and servers' URLs."""
        ca = str(Path(self.agents_ca_file).absolute()) if self.agents_ca_file else ""
        values = msgspec.structs.asdict(msgspec.structs.replace(self, agents_ca_file=ca))
        return {name: value for name, value in values.items() if name not in SECRET | URLS}

    def allowed_origins(self) -> list[str]:
        """The origins of `cors_origins`; raises `CannotStart`."""
        origins = [origin.strip().rstrip("/") for origin in self.cors_origins.split(",") if origin.strip()]
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
                raise CannotStart(
                    f"IOTISTICA_CORS_ORIGINS must be origins such as https://plant.example, not {origin[:100]!r}"
                )
        return origins

    def agents_broker(self) -> BrokerAddress:
        """The address of the broker that agents receive; raises `CannotStart`."""
        url = self.agents_mqtt_url or f"mqtt://{in_url(self.agents_host)}:{self.mqtt_port}"
        try:
            ca = Path(self.agents_ca_file).read_text() if self.agents_ca_file else None
            return parse_broker_url(url, ca)
        except (OSError, UnicodeDecodeError) as exc:
            raise CannotStart(f"Cannot read the file of IOTISTICA_AGENTS_CA_FILE: {exc}.") from exc
        except ValueError as exc:  # its text can contain a part of the URL's password
            schemes = "mqtt, mqtts, ws or wss, such as mqtts://host:8883"
            raise CannotStart(f"IOTISTICA_AGENTS_MQTT_URL must be a URL with {schemes}") from exc


def in_url(host: str) -> str:
    """Return a host name or address as it stands in a URL: an IPv6 address in brackets (RFC 3986)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
