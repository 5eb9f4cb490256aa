"""The commands about provisioning keys."""

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
    """Provisioning keys, with which agents register themselves."""


@keys.command("add")
@click.option("--uses", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Agents.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="Until it expires.")
@click.option("--fleet", help="Name or id of the fleet that the agents join.")
@click.option("--description", type=Text(500))
@TENANT
@click.pass_obj
def add(settings: Settings, uses: int, days: int, fleet: str | None, description: str | None, tenant: str) -> None:
    """Make a key; prints it, only now."""
    key = server_key(settings)
    secret = credentials.new(key, credentials.PROVISIONING, secrets.token_bytes(credentials.ENTROPY))

    async def work(tx: Tx) -> str:
        owner = await find_tenant(tx, tenant)
        found = await fleets.find(tx, owner, fleet) if fleet else None
        if fleet and found is None:
            raise NotFound(f"there is no fleet {fleet!r}; `iotistica fleets list --tenant` shows them")
        await provisioning_keys.add(
            *(tx, owner),
            digest=secret.digest,
            hint=secret.hint,
            fleet=found.fleet_uuid if found else None,
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
    """List a tenant's keys that are not revoked."""

    async def work(tx: Tx) -> list[str]:
        owner = await find_tenant(tx, tenant)
        found = await provisioning_keys.page(tx, owner, fleet=None, after=None, limit=100_000)
        return [
            f"{key.key_id}  {key.hint + '…':14}  {key.uses:>6} of {key.max_uses:<6}"
            f"  until {key.expires_at:%Y-%m-%d}  {key.description or ''}"
            for key in found
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@keys.command("revoke")
@click.argument("key", type=click.UUID, metavar="ID")
@TENANT
@click.pass_obj
def revoke(settings: Settings, key: UUID, tenant: str) -> None:
    """End the key of that ID, which `keys list` shows; the agents that registered with it stay."""

    async def work(tx: Tx) -> None:
        if not await provisioning_keys.revoke(tx, await find_tenant(tx, tenant), key, by=command_actor()):
            raise NotFound(f"there is no key {key}; `iotistica keys list --tenant` shows them")

    in_database(settings, work)
    click.echo(f"{key} is revoked")
