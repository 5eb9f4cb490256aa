"""The commands that manage alert rules."""

from typing import BinaryIO
from uuid import UUID

import click
import msgspec

from iotistica.api.alerts import rules as api
from iotistica.cli.arguments import TENANT, command_actor, format_list, printable
from iotistica.cli.database import find_tenant, in_database
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid
from iotistica.settings import Settings
from iotistica.storage.access import quotas
from iotistica.storage.alerts import rules as rules_
from iotistica.storage.alerts.rules import NewRule, StoredRule
from iotistica.storage.postgres import Tx

ID = click.argument("rule", type=click.UUID)


@click.group()
def rules() -> None:
    """Manage alert rules, which watch readings and agents and open incidents."""


@rules.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's rules: id, severity, state, kind of condition and name."""

    async def work(tx: Tx) -> list[str]:
        rows = await rules_.page(tx, await find_tenant(tx, tenant), after=None, enabled=None, limit=100_000)
        return [
            f"{row.rule_id}  {row.severity:8}  {'enabled' if row.is_enabled else 'disabled':8}"
            f"  {_kind(row):11}  {printable(row.name)}"
            for row in rows
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@rules.command("show")
@ID
@TENANT
@click.pass_obj
def show(settings: Settings, rule: UUID, tenant: str) -> None:
    """Print a rule as JSON, in the form that `rules add` reads."""

    async def work(tx: Tx) -> StoredRule:
        return await rules_.get(tx, await find_tenant(tx, tenant), rule)

    row = in_database(settings, work)
    body = {"name": row.name, "severity": row.severity, "enabled": row.is_enabled}
    content = msgspec.json.encode(body | msgspec.to_builtins(row.definition))
    click.echo(msgspec.json.format(content, indent=2).decode())


@rules.command("add")
@click.argument("file", type=click.File("rb"))
@TENANT
@click.pass_obj
def add(settings: Settings, file: BinaryIO, tenant: str) -> None:
    """Create a rule from a file with JSON, or from standard input if FILE is `-`.

    For example: {"name": "Boiler too hot", "severity": "critical", "scope": {"series": "boiler.temperature"},
    "condition": {"kind": "threshold", "above": 70, "clearBelow": 65}, "forSeconds": 60}
    """
    try:
        body = msgspec.json.decode(file.read())
    except msgspec.DecodeError as exc:
        raise Invalid(f"The file is not JSON: {exc}") from None
    wanted = api.checked(api.parse(body))

    async def work(tx: Tx) -> StoredRule:
        owner = await find_tenant(tx, tenant)
        most = (await quotas.get(tx, owner)).alert_rules
        return await rules_.put(tx, owner, wanted, old=None, most=most, by=command_actor())

    click.echo(in_database(settings, work).rule_id)


@rules.command("enable")
@ID
@TENANT
@click.pass_obj
def enable(settings: Settings, rule: UUID, tenant: str) -> None:
    """Enable a rule; it is applied within seconds."""
    _enable(settings, rule, tenant, enabled=True)


@rules.command("disable")
@ID
@TENANT
@click.pass_obj
def disable(settings: Settings, rule: UUID, tenant: str) -> None:
    """Disable a rule; its open incidents are resolved."""
    _enable(settings, rule, tenant, enabled=False)


def _enable(settings: Settings, rule: UUID, tenant: str, *, enabled: bool) -> None:
    async def work(tx: Tx) -> None:
        owner = await find_tenant(tx, tenant)
        old = await rules_.get(tx, owner, rule)
        wanted = NewRule(name=old.name, definition=old.definition, severity=old.severity, is_enabled=enabled)
        await rules_.put(tx, owner, wanted, old=old, most=None, by=command_actor())

    in_database(settings, work)
    click.echo(f"{rule} is {'enabled' if enabled else 'disabled'}")


@rules.command("delete")
@ID
@TENANT
@click.pass_obj
def delete(settings: Settings, rule: UUID, tenant: str) -> None:
    """Delete a rule; its open incidents are resolved."""

    async def work(tx: Tx) -> TenantId:
        owner = await find_tenant(tx, tenant)
        await rules_.delete(tx, owner, rule, by=command_actor())
        return owner

    in_database(settings, work)
    click.echo(f"{rule} is deleted")


def _kind(rule: StoredRule) -> str:
    return str(msgspec.to_builtins(rule.definition.condition)["kind"])
