"""The owner of the database has no superuser rights, as on every managed service."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from iotistica.embedded import data_folder
from iotistica.embedded import servers as embedded
from iotistica.errors import CannotStart, Unavailable
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.postgres import Database
from tests.serving import new_data_folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster without the application's roles; the URL is that of its superuser."""
    with new_data_folder() as folder:
        settings = Settings(data_dir=str(folder))
        with embedded.running(settings, data_folder.server_key(folder), ("postgres", "redis")) as servers:
            yield servers.database_url


def owned(cluster: str, name: str, options: str) -> str:
    """Create a user with a database of its own, both with this name; return the user's URL."""
    with psycopg.connect(cluster, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' {}").format(
                sql.Identifier(name),
                sql.SQL(options),
            )
        )
        connection.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    address = cluster.partition("@")[2].partition("/")[0]
    return f"postgresql://{name}:secret@{address}/{name}"


async def works(url: str) -> bool:
    """Whether both roles can be used over this URL."""
    for role in ("iotistica_api", "iotistica_worker"):
        database = Database(url, size=1, name="test", role=role, statement_seconds=5)
        await database.open()
        try:
            async with database.transaction() as tx:
                assert await (await tx.execute("SELECT current_user")).fetchone() == (role,)
        finally:
            await database.close()
    return True


async def test_an_owner_that_may_create_roles_can_serve(cluster: str) -> None:
    """It becomes a member of the roles that it creates, also of those that an earlier version has created."""
    url = owned(cluster, "iot", "CREATEROLE")
    schema._upgrade(url, "0018")
    assert await works(url)
    with psycopg.connect(url, autocommit=True) as connection:  # as earlier versions left it
        connection.execute("REVOKE iotistica_api, iotistica_worker FROM iot GRANTED BY iot")
    with pytest.raises(Unavailable, match='permission denied to set role "iotistica_api"'):
        await works(url)
    assert schema.migrate(url)
    assert await works(url)


async def test_a_missing_membership_is_named_with_its_statement(cluster: str) -> None:
    """The roles belong to another user: the message holds what an administrator has to run."""
    owned(cluster, "first", "CREATEROLE")
    url = owned(cluster, "second", "")
    with psycopg.connect(cluster, autocommit=True) as connection:
        for role in ("iotistica_api", "iotistica_worker"):
            with connection.transaction():
                connection.execute(
                    sql.SQL(
                        "DO $$ BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
                    ).format(sql.Identifier(role))
                )
    with pytest.raises(CannotStart) as raised:
        schema.migrate(url)
    statement = 'GRANT iotistica_api, iotistica_worker TO "second" WITH SET TRUE;'
    assert statement in str(raised.value)
    with psycopg.connect(cluster, autocommit=True) as connection:
        connection.execute(statement.encode())
    schema.migrate(url)
    assert await works(url)


def test_a_missing_right_on_the_schema_is_named(cluster: str) -> None:
    """A user without a database of its own may not create tables."""
    url = owned(cluster, "guest", "")
    shared = url.rpartition("/")[0] + "/iotistica"
    with pytest.raises(CannotStart, match=r"permission denied for schema public.*GRANT CREATE ON SCHEMA public"):
        schema.migrate(shared)
