"""The commands that manage tenants."""

import asyncio
import os
from pathlib import Path

import click
import msgspec

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
    """Manage tenants (customers, each with its own agents and users)."""


@tenants.command("add")
@click.argument("name", type=Text(100))
@click.option("--id", "id_", help="Id of 12 lower-case hex characters.  [default: random]")
@click.pass_obj
def add(settings: Settings, name: str, id_: str | None) -> None:
    """Create a tenant and print its id."""
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
    """List all tenants with their quotas."""

    async def work(tx: Tx) -> list[str]:
        rows = await tenants_.all_tenants(tx)
        return [f"{t.tenant_id}  {'enabled ' if t.enabled else 'disabled'}  {t.name}{_quotas(t)}" for t in rows]

    click.echo(format_list(in_database(settings, work), "none"))


def _quotas(tenant: tenants_.Tenant) -> str:
    bounds = {
        "agents": tenant.quota_agents,
        "series": tenant.quota_series,
        "readings/min": tenant.quota_readings_minute,
        "alert rules": tenant.quota_alert_rules,
        "series in alert rules": tenant.quota_alert_series,
        "messages/h": tenant.quota_alert_messages_hour,
    }
    shown = ", ".join(f"{most} {what}" for what, most in bounds.items() if most is not None)
    return f"  (at most {shown})" if shown else ""


@tenants.command("disable")
@click.argument("name")
@click.pass_obj
def disable(settings: Settings, name: str) -> None:
    """Lock out all users, keys and agents of a tenant.

    Nothing is deleted. NAME is the tenant's name or id.
    """
    _enable(settings, name, enabled=False)


@tenants.command("enable")
@click.argument("name")
@click.pass_obj
def enable(settings: Settings, name: str) -> None:
    """Enable a tenant that was disabled.

    NAME is the tenant's name or id.
    """
    _enable(settings, name, enabled=True)


def _enable(settings: Settings, name: str, *, enabled: bool) -> None:
    async def work(tx: Tx) -> None:
        await tenants_.enable(tx, await find_tenant(tx, name), enabled=enabled, by=command_actor())

    in_database(settings, work)
    click.echo(f"{name} is {'enabled' if enabled else 'disabled'}")


@tenants.command("quotas")
@click.argument("name")
@click.option("--agents", type=click.IntRange(0), help="Maximum number of agents that are not retired.")
@click.option("--series", type=click.IntRange(0), help="Maximum number of stored series.")
@click.option("--readings-minute", type=click.IntRange(0), help="Maximum number of readings accepted per minute.")
@click.option("--alert-rules", type=click.IntRange(0), help="Maximum number of alert rules.  [default: 1000]")
@click.option("--alert-series", type=click.IntRange(0), help="Maximum number of series that alert rules watch.")
@click.option(
    "--alert-messages-hour", type=click.IntRange(0), help="Maximum number of messages an hour.  [default: 1000]"
)
@click.option("--none", "none", is_flag=True, help="Remove every quota that is not given.")
@click.pass_obj
def set_quotas(settings: Settings, /, name: str, none: bool, **given: int | None) -> None:
    """Set or show a tenant's quotas.

    Quotas without an option stay as they are; without any option the command only shows them. NAME is the tenant's
    name or id.
    """

    async def work(tx: Tx) -> Quotas:
        tenant = await find_tenant(tx, name)
        base = Quotas() if none else await quotas.get(tx, tenant)
        changed = msgspec.structs.replace(base, **{what: most for what, most in given.items() if most is not None})
        if none or changed != base:
            await quotas.put(tx, tenant, changed, by=command_actor())
        return changed

    shown = in_database(settings, work)
    for what, most in shown.facts().items():
        click.echo(f"{what:20} {'unbounded' if most is None else most}")


@tenants.command("keep")
@click.argument("name")
@click.option("--days", type=click.IntRange(1, 36_500), help="Days for which the tenant's readings are kept.")
@click.option("--all", "all_", is_flag=True, help="Keep readings for as long as the deployment's settings say.")
@click.pass_obj
def keep(settings: Settings, name: str, days: int | None, all_: bool) -> None:
    """Limit how long a tenant's readings are kept.

    Older readings are hidden at once, and deleted permanently in the background. NAME is the tenant's name or id.
    """
    if all_ == (days is not None):
        raise Invalid("Give either --days or --all.")

    async def work(tx: Tx) -> None:
        await tenants_.set_retention(tx, await find_tenant(tx, name), days, by=command_actor())

    in_database(settings, work)
    click.echo(f"{name} keeps {'all readings' if days is None else f'{days} days of readings'}")


@tenants.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def export(settings: Settings, name: str, folder: Path) -> None:
    """Export all data of a tenant to CSV files.

    The files are written to a new or empty FOLDER, without secrets. NAME is the tenant's name or id.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Invalid(f"The folder {folder} is not empty. Name a new folder.")

    async def find(tx: Tx) -> TenantId:
        id_ = await find_tenant(tx, name)
        await audit.record(tx, id_, command_actor(), "tenant.exported", ("tenant", id_))
        return id_

    async def write(url: str, tenant: TenantId) -> None:
        async with opened(url) as database, database.transaction(unbounded=True, snapshot=True) as tx:
            await tenant_export.export_tenant(
                tx, tenant, folder, lambda table, size: click.echo(f"{size:>14,}  {table}.csv")
            )

    tenant = in_database(settings, find)
    os.umask(0o077)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as exc:
        raise Invalid(f"Cannot create the folder {folder}: {exc.strerror}.") from exc
    with database_url(settings) as url:
        run(write(url, tenant))


@tenants.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def delete(settings: Settings, name: str, yes: bool) -> None:
    """Delete a disabled tenant and all its data permanently.

    NAME is the tenant's name or id. `iotistica tenants disable` must come first.
    """

    async def find(tx: Tx) -> tenants_.Tenant:
        await find_tenant(tx, name)
        row = await tenants_.find(tx, name)
        assert row is not None  # noqa: S101 it was found a line ago
        return row

    tenant = in_database(settings, find)
    if tenant.enabled:
        raise Conflict(f"{tenant.name} is enabled. Run `iotistica tenants disable {tenant.name}` first.")
    if not yes and not _is_sure(tenant):
        raise Conflict("Nothing was deleted: the name was not confirmed.")

    running = bool(settings.redis_url) or data_folder.is_claimed(settings.data_path)

    async def remove(url: str, redis: str) -> None:
        client = redis_.client(redis)
        try:
            # Redis first: if the command is killed in between, the tenant still exists and can be deleted again.
            await tenant_export.delete_redis_keys(client, tenant.tenant_id)
            async with opened(url, role=None) as database, database.transaction(unbounded=True) as tx:
                await tenant_export.delete_tenant(tx, tenant.tenant_id)
            if running:  # for as long a worker can still read, and thereby create, the tenant's streams
                await asyncio.sleep(directory.CACHE_SECONDS + 1)
            await tenant_export.delete_redis_keys(client, tenant.tenant_id)
        finally:
            await client.aclose()

    with database_url(settings) as url, redis_url(settings) as redis:
        schema.migrate(url)
        run(remove(url, redis))
    click.echo(f"{tenant.name} is deleted")


def _is_sure(tenant: tenants_.Tenant) -> bool:
    click.echo(
        f"This deletes {tenant.name} ({tenant.tenant_id}) permanently: users, keys, agents, readings and audit log."
    )
    try:
        return bool(click.prompt("Type its name to confirm", default="", show_default=False) == tenant.name)
    except click.Abort:  # standard input is closed, or Ctrl-C
        click.echo()
        return False
