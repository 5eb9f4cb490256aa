"""The commands that manage provisioning keys."""

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from iotistica.cli.arguments import TENANT, Text, command_actor, format_list
from iotistica.cli.database import find_tenant, in_database, server_key
from iotistica.domain.access import credentials
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage.agents import fleets, provisioning_keys
from iotistica.storage.postgres import Tx


@click.group()
def keys() -> None:
    """Manage provisioning keys (with which agents register)."""


@keys.command("add")
@click.option(
    "--uses",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Number of agents that can register with the key.",
)
@click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="Days until the key expires."
)
@click.option("--fleet", help="Name or id of the fleet that the agents join.")
@click.option("--description", type=Text(500), help="Text shown in lists of keys.")
@TENANT
@click.pass_obj
def add(settings: Settings, uses: int, days: int, fleet: str | None, description: str | None, tenant: str) -> None:
    """Create a provisioning key and print it.

    The key is shown only once.
    """
    key = server_key(settings)
    secret = credentials.new(key, credentials.PROVISIONING, secrets.token_bytes(credentials.ENTROPY))

    async def work(tx: Tx) -> str:
        owner = await find_tenant(tx, tenant)
        joined = await fleets.find(tx, owner, fleet) if fleet else None
        if fleet and joined is None:
            raise NotFound(
                f"There is no fleet {fleet!r}. `iotistica fleets list --tenant` lists a tenant's fleets."
            )
        await provisioning_keys.add(
            *(tx, owner),
            digest=secret.digest,
            hint=secret.hint,
            fleet=joined.fleet_uuid if joined else None,
            description=description,
            max_uses=uses,
            expires=datetime.now(UTC) + timedelta(days=days),
            by=command_actor(),
        )
        return secret.text

    click.echo(in_database(settings, work))


@keys.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's provisioning keys that are not revoked."""

    async def work(tx: Tx) -> list[str]:
        owner = await find_tenant(tx, tenant)
        rows = await provisioning_keys.page(tx, owner, fleet=None, after=None, limit=100_000)
        return [
            f"{key.key_id}  {key.hint + '…':14}  {key.uses:>6} of {key.max_uses:<6}"
            f"  until {key.expires_at:%Y-%m-%d}  {key.description or ''}"
            for key in rows
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@keys.command("revoke")
@click.argument("key", type=click.UUID, metavar="ID")
@TENANT
@click.pass_obj
def revoke(settings: Settings, key: UUID, tenant: str) -> None:
    """Revoke the provisioning key with this ID.

    `iotistica keys list` shows the IDs. Agents that have registered with the key are not affected.
    """

    async def work(tx: Tx) -> None:
        if not await provisioning_keys.revoke(tx, await find_tenant(tx, tenant), key, by=command_actor()):
            raise NotFound(f"There is no key {key}. `iotistica keys list --tenant` lists a tenant's keys.")

    in_database(settings, work)
    click.echo(f"{key} is revoked")
