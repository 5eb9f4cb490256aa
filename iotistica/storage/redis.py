"""Redis: the client, the translation of its errors, and the names of all keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast
from uuid import UUID

from loguru import logger
from redis import asyncio as driver
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from iotistica.domain.ids import TenantId
from iotistica.errors import CannotStart, Full, Unavailable
from iotistica.storage.circuit_breaker import CircuitBreaker


class Redis(driver.Redis):
    """The driver's client with the circuit breaker that all its calls in this process share."""

    breaker: CircuitBreaker
    unreleased: dict[str, str]
    """Leases that could not be released, with this process's tokens for them."""


CONNECTIONS: Final = 32  # size of the connection pool
TIMEOUT_SECONDS: Final = 3.0  # seconds to wait for a connection or an answer

PLATFORM_DLQ: Final = "platform:dlq"
REFUSED_LOGINS: Final = "platform:broker:refused"
"""Prefix of the counts of refused log-ins, by hour."""
ALARMS: Final = "platform:alarms"
"""The alarms that are raised now, by process."""
OUTBOUND_TENANTS: Final = "platform:outbound"
"""The tenants that have messages waiting for the broker."""


def client(url: str) -> Redis:
    """Return a client with a bounded pool that does not retry, because the platform retries itself."""
    pool = driver.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    redis = cast(Redis, Redis.from_pool(pool))
    redis.breaker, redis.unreleased = CircuitBreaker("redis"), {}
    return redis


@contextmanager
def guarded(redis: Redis) -> Iterator[None]:
    """Translate the driver's errors; raises `Unavailable` without calling Redis while the breaker is open."""
    with redis.breaker.guard(), _translated_errors():
        yield


_CANNOT_SERVE: Final = (
    *(exceptions.TimeoutError, OSError, exceptions.ReadOnlyError),
    *(exceptions.ClusterDownError, exceptions.MasterDownError, exceptions.TryAgainError),
)
"""Errors of a server that cannot serve at the moment; LOADING is a `ConnectionError` of the driver."""


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except exceptions.OutOfMemoryError as exc:
        raise Full("Redis has reached its memory limit.") from exc
    except exceptions.ExecAbortError as exc:
        raise Full(f"Redis refused a write: {exc}") from exc
    except exceptions.ConnectionError as exc:
        if "No connection available" in str(exc):  # the client's pool is exhausted; the server can be healthy
            raise Full("Too many concurrent calls of Redis.") from exc
        raise Unavailable(f"Redis: {exc}") from exc
    except _CANNOT_SERVE as exc:
        raise Unavailable(f"Redis: {exc}") from exc
    except exceptions.ResponseError as exc:
        if str(exc).startswith("MISCONF"):  # the driver has no class for it
            raise Unavailable(f"Redis: {exc}") from exc
        raise


async def ping(redis: Redis) -> None:
    """Raise `Unavailable` unless Redis answers."""
    with guarded(redis):
        await redis.ping()


async def check_configuration(redis: Redis) -> None:
    """Raise `CannotStart` if Redis would lose data; log a warning for each unsafe setting.

    Before 8.4, if the default user has fewer rights than `+@all`, the replay of the append-only file drops writes
    made inside MULTI, including stream acknowledgements (redis/redis#14541).
    """
    with guarded(redis):
        try:
            user = await redis.execute_command("ACL", "GETUSER", "default")  # type: ignore[no-untyped-call]
        except exceptions.NoPermissionError:
            return
        except exceptions.ResponseError:
            return
    await _warn_of_settings(redis)
    facts = user if isinstance(user, dict) else dict(zip(user[::2], user[1::2], strict=False))
    commands = facts.get(b"commands") or facts.get("commands") or b""
    text = commands.decode() if isinstance(commands, bytes) else str(commands)
    if text and "+@all" not in text.split():
        raise CannotStart(
            "The Redis user `default` does not have +@all, so a restart of Redis would lose data."
            " Set it to `off ~* &* +@all` (no login, all rights)."
        )


REQUIRED_SETTINGS: Final = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


async def _warn_of_settings(redis: Redis) -> None:
    try:
        with guarded(redis):
            settings = await redis.config_get(*REQUIRED_SETTINGS)
    except exceptions.ResponseError:
        return  # this client is not allowed to read the settings
    for name, value in REQUIRED_SETTINGS.items():
        if settings.get(name, value) != value:
            logger.bind(setting=name, wanted=value).warning("Redis can lose data that it has acknowledged")


def readings_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:devices:ingestion"


def control_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:control"


def logs_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:logs"


def outbound_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:outbound"


def parked_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:parked"


def dead_letter_stream(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:agent:devices:dlq"


def ledger_key(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:ledger"


def dictionary_key(tenant: TenantId, agent: UUID) -> str:
    return f"tenant:{{{tenant}}}:dict:{agent}"


def poll_key(tenant: TenantId, agent: UUID) -> str:
    return f"tenant:{{{tenant}}}:poll:{agent}"


def live_channel(tenant: TenantId, agent: UUID, kind: str) -> str:
    return f"tenant:{{{tenant}}}:device:{agent}:{kind}"


def live_pattern(tenant: TenantId) -> str:
    """Return the pattern of the channels of all agents of a tenant."""
    return f"tenant:{{{tenant}}}:device:*"


def tenant_pattern(tenant: TenantId) -> str:
    """Return the pattern of all keys of a tenant."""
    return f"tenant:{{{tenant}}}:*"


def watched_key(tenant: TenantId) -> str:
    return f"tenant:{{{tenant}}}:watched"


def limit_key(tenant: str | None, name: str, subject: str, minute: int) -> str:
    scope = f"tenant:{{{tenant}}}:" if tenant else ""
    return f"{scope}limit:{name}:{subject}:{minute}"


def control_group(tenant: TenantId) -> str:
    return f"{{{tenant}}}:control"


def logs_group(tenant: TenantId) -> str:
    return f"{{{tenant}}}:log-writers"


def readings_group(tenant: TenantId) -> str:
    return f"{{{tenant}}}:device-writers"
