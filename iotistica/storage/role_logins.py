"""The two roles of the application as users of the database that log in with a password of their own."""

from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from iotistica.errors import CannotStart
from iotistica.storage.postgres import Role

ROLES: Final[tuple[Role, ...]] = get_args(Role)


def check_membership(connection: psycopg.Connection[Any]) -> None:
    """Raise `CannotStart` with the statement that helps, if this user cannot act as the application's roles."""
    user = connection.info.user
    for role in ROLES:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        except psycopg.Error as exc:
            more = " WITH SET TRUE" if connection.info.server_version >= 160_000 else ""
            raise CannotStart(
                f"The database user {user} cannot act as {role}: {str(exc).strip()}. As an administrator, run:"
                f' GRANT {", ".join(ROLES)} TO "{user}"{more};'
            ) from exc


def allow_role_logins(url: str, passwords: Mapping[Role, str]) -> None:
    """Allow the roles to log in with a password; raises `CannotStart`, for example without the privilege.

    A connection that logged in as a role cannot become the owner again, as a connection with `SET ROLE` can.
    """
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            for role, password in passwords.items():
                statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))
    except psycopg.Error as exc:
        raise CannotStart(f"Cannot allow the roles of the application to log in: {str(exc).strip()}") from exc


def url_for_role(url: str, role: Role, password: str) -> str:
    """Return the URL of the same database for a role with a password."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{quote(password, safe='')}@{address}").geturl()
