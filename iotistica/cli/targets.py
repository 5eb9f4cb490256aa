"""The commands that manage the targets of notifications."""

from typing import BinaryIO
from uuid import UUID

import click
import msgspec

from iotistica.api.alerts import targets as api
from iotistica.cli.arguments import TENANT, command_actor, format_list, printable
from iotistica.cli.database import find_tenant, in_database, server_key
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.errors import Invalid
from iotistica.settings import Settings
from iotistica.storage.alerts import notice_search
from iotistica.storage.alerts import targets as targets_
from iotistica.storage.postgres import Tx

ID = click.argument("target", type=click.UUID)


@click.group()
def targets() -> None:
    """Manage the targets of notifications (webhooks, e-mail and others)."""


@targets.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's targets: id, kind, state and name."""

    async def work(tx: Tx) -> list[str]:
        rows = await targets_.page(tx, await find_tenant(tx, tenant), after=None, limit=10_000)
        return [
            f"{row.target_id}  {row.kind:8}  {'enabled' if row.is_enabled else 'disabled':8}  {printable(row.name)}"
            for row in rows
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@targets.command("add")
@click.argument("file", type=click.File("rb"))
@TENANT
@click.pass_obj
def add(settings: Settings, file: BinaryIO, tenant: str) -> None:
    """Create a target from a file with JSON, or from standard input if FILE is `-`.

    For example: {"name": "On-call", "channel": {"kind": "email", "to": ["oncall@example.com"]}}
    """
    try:
        body = msgspec.json.decode(file.read())
    except msgspec.DecodeError as exc:
        raise Invalid(f"The file is not JSON: {exc}") from None
    wanted = api.parse(body)
    box = SecretBox(server_key(settings))

    async def work(tx: Tx) -> targets_.SealedTarget:
        owner = await find_tenant(tx, tenant)
        spec = api.checked(wanted, None, settings)
        return await targets_.put(
            *(tx, owner, box, spec), name=wanted.name, is_enabled=wanted.enabled, old=None, by=command_actor()
        )

    click.echo(in_database(settings, work).target_id)


@targets.command("delete")
@ID
@TENANT
@click.pass_obj
def delete(settings: Settings, target: UUID, tenant: str) -> None:
    """Delete a target with its messages."""

    async def work(tx: Tx) -> None:
        await targets_.delete(tx, await find_tenant(tx, tenant), target, by=command_actor())

    in_database(settings, work)
    click.echo(f"{target} is deleted")


@targets.command("messages")
@click.option("--dead", is_flag=True, help="Only messages that could not be delivered.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@TENANT
@click.pass_obj
def messages(settings: Settings, dead: bool, limit: int, tenant: str) -> None:
    """List messages about incidents, the newest first: id, time, status, attempts, target, title and error."""

    async def work(tx: Tx) -> list[str]:
        rows = await notice_search.page(
            *(tx, await find_tenant(tx, tenant)),
            status="dead" if dead else None,
            incident=None,
            target=None,
            before=None,
            limit=limit,
        )
        return [
            f"{row.notice_id}  {row.created_at:%Y-%m-%d %H:%M:%S}  {row.status:9}  x{row.attempts}"
            f"  {printable(row.target_name)}  {row.kind} {printable(row.facts.title)}"
            f"  {printable(row.last_error or '')}".rstrip()
            for row in rows
        ]

    click.echo(format_list(in_database(settings, work), "none"))
