"""The commands that list and handle incidents."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import click

from iotistica.cli.arguments import TENANT, Text, command_actor, format_list, printable
from iotistica.cli.database import find_tenant, in_database
from iotistica.settings import Settings
from iotistica.storage.alerts import incident_actions, incident_history, incident_search
from iotistica.storage.alerts.incident_search import IncidentFilter, Member
from iotistica.storage.alerts.incidents import Incident
from iotistica.storage.postgres import Tx

ID = click.argument("incident", type=click.UUID)
NOTE = click.option("--note", type=Text(2000), help="A note for its history.")
SHOWN = 50  # members that `show` prints


@click.group()
def incidents() -> None:
    """List and handle incidents (what alert rules and agents found)."""


@incidents.command("list")
@TENANT
@click.option("--all", "every", is_flag=True, help="Resolved incidents as well.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@click.pass_obj
def list_(settings: Settings, tenant: str, every: bool, limit: int) -> None:
    """List incidents, the newest first: id, time, severity, status, members and title."""

    async def work(tx: Tx) -> list[str]:
        wanted = IncidentFilter(statuses=None if every else ("open", "acknowledged"))
        rows = await incident_search.page(tx, await find_tenant(tx, tenant), wanted, before=None, limit=limit)
        return [
            f"{row.incident_id}  {row.opened_at:%Y-%m-%d %H:%M:%S}  {row.severity:8}  {row.status:12}"
            f"  {row.active_members:4}/{row.members:<4}  {printable(row.title)}"
            for row in rows
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@incidents.command("show")
@ID
@TENANT
@click.pass_obj
def show(settings: Settings, incident: UUID, tenant: str) -> None:
    """Print what an incident is about, and its history."""

    async def work(tx: Tx) -> list[str]:
        owner = await find_tenant(tx, tenant)
        found = await incident_search.get(tx, owner, incident)
        members = await incident_search.members(tx, owner, incident, limit=SHOWN)
        history = await incident_history.of_incident(tx, owner, incident)
        more = [f"  … and {members.total - SHOWN} more"] if members.total > SHOWN else []
        return [
            f"{printable(found.title)}: {found.severity}, {found.status}",
            f"{found.active_members} of {found.members} last",
            "",
            *(_member(member) for member in members),
            *more,
            "",
            *(
                f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:12}  {(entry.author or {}).get('name') or '-'}"
                f"  {printable(entry.note or entry.details.get('reason') or '')}".rstrip()
                for entry in history
            ),
        ]

    click.echo("\n".join(in_database(settings, work)))


@incidents.command("acknowledge")
@ID
@NOTE
@TENANT
@click.pass_obj
def acknowledge(settings: Settings, incident: UUID, note: str | None, tenant: str) -> None:
    """Say that somebody looks after an incident: it is not escalated any more."""
    _act(settings, tenant, incident, note, incident_actions.acknowledge)


@incidents.command("resolve")
@ID
@NOTE
@TENANT
@click.pass_obj
def resolve(settings: Settings, incident: UUID, note: str | None, tenant: str) -> None:
    """Resolve an incident by hand; nothing is told until its condition has ended and begins anew."""
    _act(settings, tenant, incident, note, incident_actions.resolve)


def _act(
    settings: Settings, tenant: str, incident: UUID, note: str | None, action: Callable[..., Awaitable[Incident]]
) -> None:
    async def work(tx: Tx) -> Incident:
        owner = await find_tenant(tx, tenant)
        return await action(tx, owner, incident, note=note, by=command_actor(), now=datetime.now(UTC))

    click.echo(f"{incident} is {in_database(settings, work).status}")


def _member(member: Member) -> str:
    what = " of ".join(part for part in (member.metric_name, member.agent_name) if part)
    value = "" if member.value is None else f": {member.value:.6g}"
    ended = f", ended {member.ended_at:%Y-%m-%d %H:%M:%S}" if member.ended_at else ""
    return f"  {printable(what)}{value}, since {member.since:%Y-%m-%d %H:%M:%S}{ended}"
