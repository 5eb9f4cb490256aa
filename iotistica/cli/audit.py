"""The command that prints the audit log."""

import click
import msgspec

from iotistica.cli.arguments import TENANT, format_list
from iotistica.cli.database import find_tenant, in_database
from iotistica.settings import Settings
from iotistica.storage.history import audit as audit_
from iotistica.storage.history.audit import AuditEvent
from iotistica.storage.postgres import Tx


@click.command()
@TENANT
@click.option("--action", help="Only this action, such as agent.revoked; agent matches all actions agent.*.")
@click.option("--subject", help="Only changes of the object with this id.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Number of the newest changes."
)
@click.pass_obj
def audit(settings: Settings, tenant: str, action: str | None, subject: str | None, limit: int) -> None:
    """Show the audit log: who changed what, the newest change last."""

    async def work(tx: Tx) -> list[str]:
        owner = await find_tenant(tx, tenant)
        events = await audit_.page(tx, owner, before=None, limit=limit, action=action, subject=subject)
        return [_line(event) for event in reversed(events)]

    click.echo(format_list(in_database(settings, work), "none"))


def _line(event: AuditEvent) -> str:
    actor = " ".join(part for part in (event.actor_kind, event.actor_name, event.address) if part)
    after = f"  {msgspec.json.encode(event.after).decode()}" if event.after else ""
    line = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.action:26}  {event.subject_id}  by {actor}{after}"
    return "".join(c for c in line if c.isprintable())
