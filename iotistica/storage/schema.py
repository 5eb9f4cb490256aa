"""The schema of the database, and its update by numbered migrations."""

from pathlib import Path

import psycopg

from iotistica.errors import CannotStart
from iotistica.storage.role_logins import check_membership
from iotistica.storage.telemetry import timescale


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the wheel, or at the root of a checkout."""
    packaged = Path(__file__).parent.parent / "_alembic"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def newest_revision() -> str:
    """Return the revision that this code needs: that of the migration with the highest number."""
    return max(path.name for path in (migrations_folder() / "versions").glob("[0-9]*.py")).partition("_")[0]


def migrate(url: str) -> bool:
    """Update the schema; return False if it was up to date.

    A new database is set up for TimescaleDB if the server has it. Raises `CannotStart` for a database that is newer
    or unreachable, and for a user that lacks a privilege.
    """
    changed = _migrate(url)
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            check_membership(connection)
    except psycopg.Error as exc:
        raise CannotStart(f"Cannot reach PostgreSQL: {str(exc).strip()}") from exc
    return changed


def _migrate(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            version_table = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
            current = (
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
                if version_table and version_table[0]
                else None
            )
            server_version = connection.info.server_version
    except psycopg.Error as exc:
        raise CannotStart(f"Cannot reach PostgreSQL: {str(exc).strip()}") from exc
    if server_version < 150_000:
        raise CannotStart(f"PostgreSQL 15 or newer is required; this server is version {server_version // 10_000}.")
    wanted = newest_revision()
    if current and current[0] == wanted:
        return False
    if current and current[0] > wanted:
        raise CannotStart(
            f"The database is at revision {current[0]}, newer than this program's {wanted}. Update the program."
        )
    _upgrade(url)
    if current is None:
        timescale.adopt_if_available(url)
    return True


def _upgrade(url: str, revision: str = "head") -> None:
    from alembic.config import Config
    from sqlalchemy.exc import SQLAlchemyError

    from alembic import command  # imported here because the import takes 0.3 s and is seldom needed

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    scheme, _, rest = url.partition("://")
    dialect = "postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme
    config.set_main_option("sqlalchemy.url", f"{dialect}://{rest}".replace("%", "%%"))
    try:
        command.upgrade(config, revision)
    except SQLAlchemyError as exc:
        raise CannotStart(f"Cannot update the database's schema: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    """Return the server's message; for a missing privilege on the schema, with the statement that gives it."""
    cause = getattr(exc, "orig", None) or exc
    if isinstance(cause, psycopg.errors.InsufficientPrivilege) and "schema" in str(cause):
        help_ = (
            "Give the user a database of its own, or as an administrator run: GRANT CREATE ON SCHEMA public TO it."
        )
        return f"{str(cause).strip().splitlines()[0]}. {help_}"
    return str(cause).strip().splitlines()[0]
