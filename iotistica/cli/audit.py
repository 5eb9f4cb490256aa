"""The command that reads the audit."""

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
@click.option("--action", help="Such as agent.revoked, or agent for all of them.")
@click.option("--subject", help="The id of what was changed.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.pass_obj
def audit(settings: Settings, tenant: str, action: str | None, subject: str | None, limit: int) -> None:
    """Show who changed what, the newest last."""

    async def work(tx: Tx) -> list[str]:
        owner = await find_tenant(tx, tenant)
        found = await audit_.page(tx, owner, before=None, limit=limit, action=action, subject=subject)
        return [_line(event) for event in reversed(found)]

    click.echo(format_list(in_database(settings, work), "none"))


def _line(event: AuditEvent) -> str:
    who = " ".join(part for part in (event.actor_kind, event.actor_name, event.address) if part)
    after = f"  {msgspec.json.encode(event.after).decode()}" if event.after else ""
    line = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.action:26}  {event.subject_id}  by {who}{after}"
    return "".join(c for c in line if c.isprintable())
