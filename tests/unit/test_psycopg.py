"""What `iotistica/storage/postgres.py` expects of psycopg and its pool, as far as their documentation does not say it."""

import inspect

import psycopg
import pytest
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

POSTGRES = "psycopg changed: adapt iotistica/storage/postgres.py"


async def test_the_statistics_of_a_pool_have_the_keys_of_the_saturation() -> None:
    """`Database.saturation` would return 0 without them, because it has defaults for a pool that never opened."""
    pool: AsyncConnectionPool = AsyncConnectionPool(
        "host=192.0.2.1 connect_timeout=1", min_size=0, max_size=3, open=False
    )
    stats = pool.get_stats()
    assert stats["pool_max"] == 3, POSTGRES
    assert {"pool_size", "pool_available"} <= set(stats), POSTGRES


@pytest.mark.parametrize(
    "kind",
    [errors.QueryCanceled, errors.DeadlockDetected, errors.SerializationFailure, errors.ProgramLimitExceeded],
)
def test_errors_of_a_healthy_server_are_operational_errors(kind: type[Exception]) -> None:
    """`_SERVER_IS_HEALTHY` excepts them from the errors that open the circuit breaker."""
    assert issubclass(kind, psycopg.OperationalError), POSTGRES


@pytest.mark.parametrize(
    "kind", [PoolTimeout, errors.AdminShutdown, errors.CannotConnectNow, errors.ConnectionTimeout]
)
def test_errors_of_a_lost_server_are_operational_errors(kind: type[Exception]) -> None:
    """`_CONNECTION_LOST` names the base class alone."""
    assert issubclass(kind, psycopg.OperationalError), POSTGRES


def test_errors_of_the_data_have_their_classes() -> None:
    """A rejected value is the caller's error, and a duplicate a conflict."""
    assert not issubclass(errors.IdleInTransactionSessionTimeout, psycopg.OperationalError), POSTGRES
    for kind in (errors.UniqueViolation, errors.ForeignKeyViolation, errors.CheckViolation):
        assert issubclass(kind, psycopg.IntegrityError), POSTGRES
    for data_error in (errors.NumericValueOutOfRange, errors.InvalidRegularExpression):
        assert issubclass(data_error, psycopg.DataError), POSTGRES
    assert not issubclass(psycopg.InterfaceError, psycopg.OperationalError), POSTGRES
    assert psycopg.DataError("x").diag.message_primary is None, POSTGRES


def test_text_with_a_nul_character_is_refused_by_the_driver() -> None:
    """`Database.transaction` looks for NUL in the driver's text, because the error has no SQLSTATE."""
    dumper = Transformer().get_dumper("a", psycopg.adapt.PyFormat.AUTO)
    with pytest.raises(psycopg.DataError, match="NUL"):
        dumper.dump("a\0")


def test_connections_and_pools_have_the_methods_that_the_code_calls() -> None:
    """`_abort` needs the socket of the connection; `_check` calls the pool's check of a connection."""
    assert callable(psycopg.AsyncConnection.fileno), POSTGRES
    assert isinstance(psycopg.AsyncConnection.closed, property), POSTGRES
    check = AsyncConnectionPool.check_connection
    assert inspect.iscoroutinefunction(check), POSTGRES
    assert list(inspect.signature(check).parameters) == ["conn"], POSTGRES
    assert "timeout" in inspect.signature(AsyncConnectionPool.getconn).parameters, POSTGRES
    assert "prepare" in inspect.signature(psycopg.AsyncCursor.execute).parameters, POSTGRES
    assert callable(dict_row), POSTGRES
