"""Every setting, its default and its meaning; read once, from the environment and a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from iotistica.domain.agents.broker_connection import BrokerAddress, parse_broker_url
from iotistica.domain.delivery.worker_scaling import PROFILES, Profile, ProfileName
from iotistica.errors import CannotStart

PREFIX = "IOTISTICA_"
SECRET = frozenset({"admin_password", "secret_key", "broker_secret", "update_secret"})
URLS = frozenset({"database_url", "redis_url", "mqtt_url"})

Port = Annotated[int, Meta(ge=1, le=65535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The environment variable of a field is its name in capitals after `IOTISTICA_`."""

    database_url: Annotated[str, Meta(description="PostgreSQL 15 to 18; empty: one of our own")] = ""
    redis_url: Annotated[str, Meta(description="Redis 6.2+ or Valkey; empty starts one of our own")] = ""
    mqtt_url: Annotated[
        str, Meta(description="mqtt://user:password@host:port of a broker; empty starts Mosquitto")
    ] = ""
    data_dir: Annotated[str, Meta(description="where the servers of our own and the keys live")] = ".iotistica"
    listen: Annotated[str, Meta(description="address of HTTP and MQTT; gateways need 0.0.0.0")] = "127.0.0.1"
    public_host: Annotated[str, Meta(description="host agents are told; empty: the listen address")] = ""
    http_port: Annotated[Port, Meta(description="REST API")] = 3002
    ops_port: Annotated[Port, Meta(description="health and metrics of a process without the http role")] = 3003
    mqtt_port: Annotated[Port, Meta(description="port of the Mosquitto of our own")] = 1883
    admin_email: Annotated[
        str, Meta(pattern=r"^[^@\s]+@[^@\s]+$", description="first owner of tenant `default`")
    ] = "admin@localhost"
    admin_password: Annotated[str, Meta(description="its password; empty: generated and printed once")] = ""
    secret_key: Annotated[
        str,
        Meta(description="64 hex characters; empty: `server.key` in the data folder"),
    ] = ""
    site_url: Annotated[
        str, Meta(description="URL of the dashboard, for links that are handed on; empty: host and HTTP port")
    ] = ""
    agents_mqtt_url: Annotated[
        str, Meta(description="broker that agents are told, such as mqtts://host:8883; empty: host and MQTT port")
    ] = ""
    agents_ca_file: Annotated[
        str, Meta(description="PEM of who signed the broker's certificate, told to agents; empty: a public one")
    ] = ""
    token_key_file: Annotated[
        str,
        Meta(description="PEM with an RSA key: tokens become RS256, with JWKS; further keys are only checked by"),
    ] = ""
    broker_secret: Annotated[
        str, Meta(description="secret of a broker that asks /mosquitto-auth/*; empty: it is closed")
    ] = ""
    update_secret: Annotated[
        str,
        Meta(description="the agents' UPDATE_COMMAND_SECRET, which signs their updates; empty: unsigned"),
    ] = ""
    trusted_proxies: Annotated[
        str, Meta(description="addresses of proxies whose X-Forwarded-For is believed, by commas")
    ] = ""
    registration_tenant: Annotated[
        str, Meta(description="tenant whose viewer anybody may become; empty: by invitation only")
    ] = ""
    login_limit: Annotated[
        int,
        Meta(ge=1, description="log-ins a minute from one address; 3 x refused registrations, 30 x wrong tokens"),
    ] = 10
    user_limit: Annotated[int, Meta(ge=1, description="requests a minute of one user or API key")] = 1000
    admin_limit: Annotated[
        int, Meta(ge=1, description="those of them that administer users, keys and identities")
    ] = 100
    agent_limit: Annotated[int, Meta(ge=1, description="requests a minute of one agent")] = 10_000
    session_days: Annotated[int, Meta(ge=1, le=365, description="how long a log-in can be refreshed")] = 30
    key_grace_hours: Annotated[
        float, Meta(ge=0, le=720, description="how long an agent's old key is good after a rotation")
    ] = 168.0
    log_level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="least level that is logged")
    ] = "INFO"
    log_format: Annotated[Literal["text", "json"], Meta(description="text for people, json for collectors")] = (
        "text"
    )
    ingest_profile: Annotated[
        ProfileName, Meta(description="balanced, batch (fewer, larger transactions) or streaming (soonest stored)")
    ] = "balanced"
    ingest_workers: Annotated[
        int, Meta(ge=0, le=32, description="consumers that store readings at least; 0: the profile's")
    ] = 0
    ingest_workers_most: Annotated[
        int, Meta(ge=0, le=32, description="consumers when much waits; 0: the profile's")
    ] = 0
    ingest_batch: Annotated[
        int, Meta(ge=0, le=50_000, description="messages a consumer takes at a time; 0: the profile's")
    ] = 0
    stream_mark: Annotated[
        int,
        Meta(ge=100, description="entries of one stream beyond which its messages go to the disk; at least 100"),
    ] = 100_000
    spool_dir: Annotated[
        str, Meta(description="where messages wait while Redis is away; empty: `spool` in the data folder")
    ] = ""
    spool_mb: Annotated[
        int, Meta(ge=16, description="MiB of each spool, one for MQTT and one for HTTP; at least 16")
    ] = 1024
    broker_queue_mb: Annotated[
        int,
        Meta(ge=16, description="MiB our Mosquitto keeps for a client that is away, with an alarm; at least 16"),
    ] = 256
    retention_days: Annotated[int, Meta(ge=1, le=36_500, description="age at which readings are dropped")] = 730
    minutes_days: Annotated[
        int, Meta(ge=1, le=36_500, description="age at which values by the minute are dropped; a month at a time")
    ] = 400
    hours_days: Annotated[
        int,
        Meta(ge=1, le=36_500, description="the same by the hour, a year at a time; not before the readings"),
    ] = 3650
    budget_gb: Annotated[
        float,
        Meta(ge=0, description="GB that readings and rollups may take: the oldest days go first; 0: all"),
    ] = 0.0
    disk_reserve_mb: Annotated[
        int, Meta(ge=0, description="MiB of our own servers' disk that no reading is stored into; 0: 3 % of it")
    ] = 0
    offline_minutes: Annotated[
        float, Meta(ge=0.1, le=1440, description="silence after which an agent is offline; at least 0.1")
    ] = 5.0
    compress_days: Annotated[
        int, Meta(ge=1, le=36_500, description="age at which TimescaleDB compresses readings")
    ] = 7
    query_seconds: Annotated[float, Meta(gt=0, le=600, description="longest a query may run")] = 15.0
    drain_seconds: Annotated[float, Meta(gt=0, le=600, description="longest a stop waits for work in flight")] = (
        10.0
    )

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().absolute()

    @property
    def spool_path(self) -> Path:
        return Path(self.spool_dir).expanduser().absolute() if self.spool_dir else self.data_path / "spool"

    @property
    def profile(self) -> Profile:
        """How readings are ingested: the profile, with what was set beside it."""
        profile = PROFILES[self.ingest_profile]
        least = self.ingest_workers or profile.least
        if 0 < self.ingest_workers_most < least:
            raise CannotStart(
                f"IOTISTICA_INGEST_WORKERS_MOST={self.ingest_workers_most} is less than the least, {least}"
            )
        return msgspec.structs.replace(
            profile,
            least=least,
            most=max(self.ingest_workers_most or profile.most, least),
            messages=self.ingest_batch or profile.messages,
        )

    @property
    def local_host(self) -> str:
        """Where this machine reaches what listens on `listen`."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen)  # noqa: S104 looked up, not bound

    @property
    def agents_host(self) -> str:
        """The host name that agents and people are told."""
        return self.public_host or self.local_host

    @property
    def site(self) -> str:
        """The URL that people are told."""
        return self.site_url.rstrip("/") or f"http://{self.agents_host}:{self.http_port}"

    def agents_broker(self) -> BrokerAddress:
        """The broker that agents are told; raises `CannotStart`."""
        url = self.agents_mqtt_url or f"mqtt://{self.agents_host}:{self.mqtt_port}"
        try:
            ca = Path(self.agents_ca_file).read_text() if self.agents_ca_file else None
            return parse_broker_url(url, ca)
        except (OSError, UnicodeDecodeError) as exc:
            raise CannotStart(f"cannot read IOTISTICA_AGENTS_CA_FILE: {exc}") from exc
        except ValueError as exc:
            raise CannotStart(f"bad setting IOTISTICA_AGENTS_MQTT_URL: {exc}") from exc


def load(environ: Mapping[str, str]) -> Settings:
    """Read `IOTISTICA_*` over the TOML file of `IOTISTICA_CONFIG`; an unknown name in the file is an error."""
    values: dict[str, Any] = {}
    if path := environ.get(PREFIX + "CONFIG"):
        try:
            values.update(tomllib.loads(Path(path).read_text()))
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise CannotStart(f"cannot read the configuration {path}: {exc}") from exc
    known = set(Settings.__struct_fields__)
    for name, value in environ.items():
        field = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and field in known and value != "":
            values[field] = value
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        what, _, field = str(exc).partition(" - at `$.")
        name = PREFIX + field.rstrip("`").upper() if field else "in the file"
        meaning = next((m for n, _, m in describe(Settings()) if n == name), "docs/configuration.md names them all")
        raise CannotStart(f"bad setting {name}: {what}; it is: {meaning}") from exc
    if settings.hours_days < settings.retention_days:  # those of a late reading's day must all be there
        raise CannotStart("bad setting IOTISTICA_HOURS_DAYS: it must be IOTISTICA_RETENTION_DAYS or more")
    return settings


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that mean nothing to us; probably misspelt."""
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    known |= {PREFIX + "CONFIG", PREFIX + "USER_PASSWORD"}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Name, value (secrets masked) and meaning of every setting, in order."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        value = str(getattr(settings, field.name))
        if value and field.name in SECRET:
            value = "***"
        if value and field.name in URLS:
            value = mask(value)
        meta = getattr(field.type, "__metadata__", ())
        meaning = next((m.description for m in meta if isinstance(m, Meta) and m.description), "")
        rows.append((PREFIX + field.name.upper(), value, meaning))
    return rows


def mask(url: str) -> str:
    """The URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, sep, credentials = head.partition("://")
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user}:***@{tail}" if at else url


def page() -> str:
    """The settings with their defaults, as a page of the documentation."""
    rows = "".join(f"| `{n}` | {f'`{v}`' if v else ''} | {meaning} |\n" for n, v, meaning in describe(Settings()))
    return (
        "# Configuration\n\nWritten by `iotistica config --markdown`.\n\n"
        f"Settings are environment variables, or lines of the TOML file that `{PREFIX}CONFIG` names, there in\n"
        "lower case and without the prefix. `iotistica config` shows those in force.\n\n"
        f"| variable | default | meaning |\n|---|---|---|\n{rows}"
    )
