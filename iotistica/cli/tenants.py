"""The commands about tenants."""

import asyncio
import os
from pathlib import Path

import click

from iotistica.cli.arguments import Text, command_actor, format_list
from iotistica.cli.database import database_url, find_tenant, in_database, opened, redis_url, run
from iotistica.domain.ids import TenantId, tenant_id
from iotistica.embedded import data_folder
from iotistica.errors import Conflict, Invalid
from iotistica.settings import Settings
from iotistica.storage import redis as redis_
from iotistica.storage import schema, tenant_export
from iotistica.storage.access import quotas
from iotistica.storage.access import tenants as tenants_
from iotistica.storage.access.quotas import Quotas
from iotistica.storage.agents import directory
from iotistica.storage.history import audit
from iotistica.storage.postgres import Tx


@click.group()
def tenants() -> None:
    """Customers, each with its own agents and users."""


@tenants.command("add")
@click.argument("name", type=Text(100))
@click.option("--id", "id_", help="12 lower-case hex characters; random unless given.")
@click.pass_obj
def add(settings: Settings, name: str, id_: str | None) -> None:
    """Make a tenant; prints its id."""
    try:
        wanted = tenant_id(id_) if id_ is not None else None
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--id") from exc

    async def work(tx: Tx) -> str:
        return (await tenants_.add(tx, name, wanted, by=command_actor())).tenant_id

    click.echo(in_database(settings, work))


@tenants.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the tenants with their quotas."""

    async def work(tx: Tx) -> list[str]:
        found = await tenants_.all_tenants(tx)
        return [f"{t.tenant_id}  {'enabled ' if t.enabled else 'disabled'}  {t.name}{_quotas(t)}" for t in found]

    click.echo(format_list(in_database(settings, work), "none"))


def _quotas(tenant: tenants_.Tenant) -> str:
    bounds = {
        "agents": tenant.quota_agents,
        "series": tenant.quota_series,
        "readings/min": tenant.quota_readings_minute,
    }
    shown = ", ".join(f"{most} {what}" for what, most in bounds.items() if most is not None)
    return f"  (at most {shown})" if shown else ""


@tenants.command("disable")
@click.argument("name")
@click.pass_obj
def disable(settings: Settings, name: str) -> None:
    """Lock out all users, keys and agents of a tenant; nothing is removed."""
    _enable(settings, name, enabled=False)


@tenants.command("enable")
@click.argument("name")
@click.pass_obj
def enable(settings: Settings, name: str) -> None:
    """Let a tenant in again."""
    _enable(settings, name, enabled=True)


def _enable(settings: Settings, name: str, *, enabled: bool) -> None:
    async def work(tx: Tx) -> None:
        await tenants_.enable(tx, await find_tenant(tx, name), enabled=enabled, by=command_actor())

    in_database(settings, work)
    click.echo(f"{name} is {'enabled' if enabled else 'disabled'}")


@tenants.command("quotas")
@click.argument("name")
@click.option("--agents", type=click.IntRange(0), help="Agents that are not retired.")
@click.option("--series", type=click.IntRange(0), help="Stored series.")
@click.option("--readings-minute", type=click.IntRange(0), help="Readings taken in a minute.")
@click.option("--none", "none", is_flag=True, help="Lift those that are not given.")
@click.pass_obj
def set_quotas(
    settings: Settings, name: str, agents: int | None, series: int | None, readings_minute: int | None, none: bool
) -> None:
    """Set what a tenant may have at most; shows it when nothing is given."""

    async def work(tx: Tx) -> Quotas:
        tenant = await find_tenant(tx, name)
        old = Quotas() if none else await quotas.get(tx, tenant)
        new = Quotas(
            agents=old.agents if agents is None else agents,
            series=old.series if series is None else series,
            readings_minute=old.readings_minute if readings_minute is None else readings_minute,
        )
        if none or new != old:
            await quotas.put(tx, tenant, new, by=command_actor())
        return new

    shown = in_database(settings, work)
    for what, most in shown.facts().items():
        click.echo(f"{what:16} {'unbounded' if most is None else most}")


@tenants.command("keep")
@click.argument("name")
@click.option("--days", type=click.IntRange(1, 36_500), help="Of readings that are shown.")
@click.option("--all", "all_", is_flag=True, help="Show all that the deployment keeps.")
@click.pass_obj
def keep(settings: Settings, name: str, days: int | None, all_: bool) -> None:
    """Show a tenant its newest readings alone, at once; what is older is deleted for ever, by and by."""
    if all_ == (days is not None):
        raise Invalid("give --days, or --all")

    async def work(tx: Tx) -> None:
        await tenants_.set_retention(tx, await find_tenant(tx, name), days, by=command_actor())

    in_database(settings, work)
    click.echo(f"{name} is shown {'everything' if days is None else f'{days} days'}")


@tenants.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def export(settings: Settings, name: str, folder: Path) -> None:
    """Write everything stored of a tenant to CSV files in a new FOLDER; without secrets."""
    if folder.exists() and any(folder.iterdir()):
        raise Invalid(f"{folder} is not empty: name a new folder")

    async def find(tx: Tx) -> TenantId:
        found = await find_tenant(tx, name)
        await audit.record(tx, found, command_actor(), "tenant.exported", ("tenant", found))
        return found

    async def write(url: str, tenant: TenantId) -> None:
        async with opened(url) as database, database.transaction(unbounded=True) as tx:
            await tenant_export.export_tenant(
                tx, tenant, folder, lambda table, size: click.echo(f"{size:>14,}  {table}.csv")
            )

    tenant = in_database(settings, find)
    os.umask(0o077)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as exc:
        raise Invalid(f"cannot make {folder}: {exc.strerror}") from exc
    with database_url(settings) as url:
        run(write(url, tenant))


@tenants.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, name: str, yes: bool) -> None:
    """Remove a disabled tenant with everything that is stored of it, for ever."""

    async def find(tx: Tx) -> tenants_.Tenant:
        await find_tenant(tx, name)
        found = await tenants_.find(tx, name)
        assert found is not None  # noqa: S101 it was found a line ago
        return found

    found = in_database(settings, find)
    if found.enabled:
        raise Conflict(f"{found.name} is enabled: `iotistica tenants disable {found.name}` first")
    if not yes and not _is_sure(found):
        raise Conflict("nothing is removed")

    running = bool(settings.redis_url) or data_folder.is_claimed(settings.data_path)

    async def remove(url: str, redis: str) -> None:
        client = redis_.client(redis)
        try:
            # Redis first: killed in between, the tenant is still there to be deleted again.
            await tenant_export.delete_redis_keys(client, found.tenant_id)
            async with opened(url, role=None) as database, database.transaction(unbounded=True) as tx:
                await tenant_export.delete_tenant(tx, found.tenant_id)
            if running:
                await asyncio.sleep(
                    directory.CACHE_SECONDS + 1
                )  # so long a worker may look for the tenant's streams
            await tenant_export.delete_redis_keys(client, found.tenant_id)
        finally:
            await client.aclose()

    with database_url(settings) as url, redis_url(settings) as redis:
        schema.migrate(url)
        run(remove(url, redis))
    click.echo(f"{found.name} is removed")


def _is_sure(tenant: tenants_.Tenant) -> bool:
    click.echo(
        f"This removes {tenant.name} ({tenant.tenant_id}) for ever: users, keys, agents, readings and audit."
    )
    try:
        return bool(click.prompt("Type its name to go on", default="", show_default=False) == tenant.name)
    except click.Abort:  # nobody is there to ask
        click.echo()
        return False
