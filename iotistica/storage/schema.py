"""The schema of the database: brought up to date by numbered migrations."""

from pathlib import Path

import psycopg

from iotistica.errors import CannotStart
from iotistica.storage.telemetry import timescale


def migrations_folder() -> Path:
    """The migrations: inside the wheel, or at the root of a checkout."""
    packaged = Path(__file__).parent.parent / "_alembic"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def newest_revision() -> str:
    """The revision this code needs; migrations are numbered, so it is the last file's."""
    return max(path.name for path in (migrations_folder() / "versions").glob("[0-9]*.py")).partition("_")[0]


def migrate(url: str) -> bool:
    """Bring the schema up to date; False if it was. Raises `CannotStart` for a newer or unreachable database.

    A new one is made for TimescaleDB where the server has it.
    """
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            known = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
            found = (
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
                if known and known[0]
                else None
            )
            version = connection.info.server_version
    except psycopg.Error as exc:
        raise CannotStart(f"cannot reach PostgreSQL: {str(exc).strip()}") from exc
    if version < 150_000:
        raise CannotStart(f"PostgreSQL 15 or newer is needed; this is {version // 10_000}")
    wanted = newest_revision()
    if found and found[0] == wanted:
        return False
    if found and found[0] > wanted:
        raise CannotStart(f"the database is at revision {found[0]}, newer than this program's {wanted}: update it")
    _upgrade(url)
    if found is None:
        timescale.adopt_if_available(url)
    return True


def _upgrade(url: str) -> None:
    from alembic.config import Config

    from alembic import command  # takes 0.3 s to import, and is seldom needed

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    scheme, _, rest = url.partition("://")
    dialect = "postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme
    config.set_main_option("sqlalchemy.url", f"{dialect}://{rest}".replace("%", "%%"))
    command.upgrade(config, "head")
