"""The commands that manage users."""

import secrets
from datetime import UTC, datetime

import click

from iotistica.cli.arguments import ROLE, TENANT, Text, command_actor, format_list
from iotistica.cli.database import find_tenant, in_database, server_key
from iotistica.domain.access import credentials, passwords
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Invalid, NotFound
from iotistica.settings import Settings
from iotistica.storage.access import one_time_links, sessions
from iotistica.storage.access import users as users_
from iotistica.storage.postgres import Tx

PASSWORD = click.option(
    "--password",
    envvar="IOTISTICA_USER_PASSWORD",
    help="Password, also from IOTISTICA_USER_PASSWORD.  [default: generated and printed]",
)


@click.group()
def users() -> None:
    """Manage users (operators who log in)."""


@users.command("add")
@click.argument("email", type=Text(254))
@TENANT
@ROLE
@click.option("--username", type=Text(64), help="Name to log in with, as an alternative to the e-mail address.")
@PASSWORD
@click.pass_obj
def add(settings: Settings, email: str, tenant: str, role: str, username: str | None, password: str | None) -> None:
    """Create a user of a tenant."""
    secret = _checked(password, email)

    async def work(tx: Tx) -> str:
        owner, digest = await find_tenant(tx, tenant), await users_.hashed(secret)
        user = await users_.add(tx, owner, email, digest, role, by=command_actor(), username=username)
        return f"{user.email}  {user.role}" + ("" if password else f"  password {secret}")

    click.echo(in_database(settings, work))


@users.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's users."""

    async def work(tx: Tx) -> list[str]:
        rows = await users_.page(tx, await find_tenant(tx, tenant), after=None, limit=100_000)
        return [f"{u.role:8}  {'active  ' if u.active else 'inactive'}  {u.email}" for u in rows]

    click.echo(format_list(in_database(settings, work), "none"))


@users.command("remove")
@click.argument("email", type=Text(254))
@TENANT
@click.pass_obj
def remove(settings: Settings, email: str, tenant: str) -> None:
    """Remove a user and end all of the user's sessions.

    The user's actions stay in the audit log. The last owner of a tenant cannot be removed.
    """

    async def work(tx: Tx) -> str:
        owner = await find_tenant(tx, tenant)
        user = await _find(tx, owner, email, tenant)
        if await users_.is_last_owner(tx, owner, user.user_id):
            raise Conflict(f"{user.email} is the last owner of {tenant}. Make another user an owner first.")
        await one_time_links.withdraw_for_user(tx, owner, user.user_id, made=True, by=command_actor())
        await users_.delete(tx, owner, user, by=command_actor())
        return f"{user.email} is removed"

    click.echo(in_database(settings, work))


async def _find(tx: Tx, owner: TenantId, email: str, tenant: str) -> users_.User:
    user = await users_.by_email(tx, owner, email)
    if user is None:
        raise NotFound(
            f"There is no user {email} in {tenant}. `iotistica users list --tenant` lists a tenant's users."
        )
    return user


@users.command("password")
@click.argument("email", type=Text(254))
@TENANT
@PASSWORD
@click.pass_obj
def password_(settings: Settings, email: str, tenant: str, password: str | None) -> None:
    """Set a user's password and end all of the user's sessions."""
    secret = _checked(password, email)

    async def work(tx: Tx) -> str:
        owner = await find_tenant(tx, tenant)
        user = await _find(tx, owner, email, tenant)
        await users_.set_password(tx, owner, user.user_id, await users_.hashed(secret), by=command_actor())
        await sessions.end(tx, owner, user.user_id, by=command_actor())
        await one_time_links.withdraw_for_user(tx, owner, user.user_id, made=False, by=command_actor())
        return f"{user.email}  the password is changed" + ("" if password else f"  password {secret}")

    click.echo(in_database(settings, work))


@users.command("link")
@click.argument("email", type=Text(254))
@TENANT
@click.pass_obj
def link_(settings: Settings, email: str, tenant: str) -> None:
    """Print a link that logs a user in to the dashboard, once, within a day."""
    new = credentials.new(server_key(settings), credentials.LINK, secrets.token_bytes(credentials.ENTROPY))

    async def work(tx: Tx) -> str:
        user = await _find(tx, await find_tenant(tx, tenant), email, tenant)
        expires = datetime.now(UTC) + one_time_links.LOGIN_LIFETIME
        await one_time_links.add_login(tx, user, new.digest, expires=expires, by=command_actor())
        return settings.login_url(new.text)

    click.echo(in_database(settings, work))


def _is_address(email: str) -> bool:
    name, at, host = email.partition("@")
    return bool(name and at and host) and "@" not in host and not any(c.isspace() for c in email)


def _checked(password: str | None, email: str) -> str:
    if not _is_address(email):
        raise Invalid(f"{email!r} is not an e-mail address. To set a name to log in with, use --username.")
    if password is None:
        return secrets.token_urlsafe(12)
    if problem := passwords.problem(password, email):
        raise Invalid(f"The password {problem}.")
    return password
