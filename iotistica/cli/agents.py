"""The commands about agents and fleets."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import click

from iotistica.cli.arguments import TENANT, Text, command_actor, format_list
from iotistica.cli.database import find_tenant, in_database, server_key
from iotistica.domain.access import credentials
from iotistica.domain.agents import broker_connection
from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import AgentId, TenantId
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage.agents import agent_search, broker_accounts, identities
from iotistica.storage.agents import agents as agents_
from iotistica.storage.agents import fleets as fleets_
from iotistica.storage.agents.agent_search import AgentFilter
from iotistica.storage.postgres import Tx

EXAMPLE = '{"readings": [{"deviceName": "plc-1", "metric": "temperature", "value": 21.5, "unit": "degC"}]}'
UUID_ = click.argument("uuid", type=click.UUID)


@click.group()
def agents() -> None:
    """Edge gateways."""


@agents.command("add")
@click.argument("name", required=False, type=Text(200))
@click.option("--uuid", "uuid_", type=click.UUID, help="Random unless given.")
@TENANT
@click.pass_obj
def add(settings: Settings, name: str | None, uuid_: UUID | None, tenant: str) -> None:
    """Make an agent; prints how it connects."""
    agent, key = AgentId(uuid_ or uuid4()), server_key(settings)
    label = name if name is not None else f"agent-{str(agent)[:8]}"

    async def work(tx: Tx) -> str:
        owner = await find_tenant(tx, tenant)
        await agents_.add(tx, owner, agent, label, key=key, by=command_actor())
        return _connection(settings, key, owner, agent, 1)

    click.echo(in_database(settings, work))


@agents.command("show")
@UUID_
@click.pass_obj
def show(settings: Settings, uuid: UUID) -> None:
    """Print an agent's state, and how it connects if it may."""
    key = server_key(settings)

    async def work(tx: Tx) -> str:
        owner, agent = await _owner(tx, uuid)
        found = await agents_.get(tx, owner, agent)
        assert found is not None  # noqa: S101 its owner was found
        facts = f"name      {found.name}\ntenant    {owner}\nstate     {found.state}"
        if found.replaced_by:
            facts += f"\nsuccessor {found.replaced_by}"
        if found.state != "active":
            return facts
        number = await broker_accounts.generation(tx, owner, agent)
        return f"{facts}\n{_connection(settings, key, owner, agent, number)}"

    click.echo(in_database(settings, work))


@agents.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's agents, and when each was last seen."""

    async def work(tx: Tx) -> list[str]:
        found = await agent_search.page(tx, await find_tenant(tx, tenant), AgentFilter(), limit=100_000)
        seen = [a.last_seen.isoformat(" ", "seconds") if a.last_seen else "never seen" for a in found]
        return [
            f"{a.agent_uuid}  {a.state:10}  {when:25}  {a.name}"
            + (f"  -> {a.replaced_by}" if a.replaced_by else "")
            for a, when in zip(found, seen, strict=True)
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@agents.command("rotate")
@UUID_
@click.option("--grace-hours", type=click.FloatRange(0, 720), help="How long the old key stays good at most.")
@click.pass_obj
def rotate(settings: Settings, uuid: UUID, grace_hours: float | None) -> None:
    """Make another API key for an agent, and print it; the old one ends when the new one is used."""
    key = server_key(settings)
    secret = credentials.new(key, credentials.AGENT, secrets.token_bytes(credentials.ENTROPY))
    hours = settings.key_grace_hours if grace_hours is None else grace_hours
    until = datetime.now(UTC) + timedelta(hours=hours)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.rotate(tx, tenant, agent, secret.digest, until=until, by=command_actor())
        return (
            f"api key   {secret.text}\n"
            f"A key it had before is good until this one is used, at the latest until {until:%Y-%m-%d %H:%M} UTC."
        )

    _change(settings, uuid, work)


@agents.command("revoke")
@UUID_
@click.option("--reason", type=Text(500))
@click.pass_obj
def revoke(settings: Settings, uuid: UUID, reason: str | None) -> None:
    """Lock an agent out at once, HTTP and MQTT; its readings stay."""
    key = server_key(settings)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.revoke(tx, tenant, agent, reason=reason, server_key=key, by=command_actor())
        return f"{agent} is revoked; `iotistica agents re-enrol` lets it register again"

    _change(settings, uuid, work)


@agents.command("re-enrol")
@UUID_
@click.option("--hours", default=24.0, show_default=True, type=click.FloatRange(0, 720, min_open=True))
@click.pass_obj
def re_enrol(settings: Settings, uuid: UUID, hours: float) -> None:
    """Let an agent register anew after a factory reset; its history is kept."""
    key, until = server_key(settings), datetime.now(UTC) + timedelta(hours=hours)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.re_enrol(tx, tenant, agent, until=until, server_key=key, by=command_actor())
        return f"{agent} may register with a provisioning key until {until.isoformat(' ', 'seconds')}"

    _change(settings, uuid, work)


@agents.command("retire")
@UUID_
@click.pass_obj
def retire(settings: Settings, uuid: UUID) -> None:
    """Take an agent out of service for good; its readings stay."""
    key = server_key(settings)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.retire(tx, tenant, agent, server_key=key, by=command_actor())
        return f"{agent} is retired"

    _change(settings, uuid, work)


@agents.command("replace")
@UUID_
@click.argument("by", type=click.UUID)
@click.pass_obj
def replace(settings: Settings, uuid: UUID, by: UUID) -> None:
    """Put the agent BY, new hardware that has registered, in the place of another: name and fleet go over."""
    key = server_key(settings)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.replace(tx, tenant, agent, by, server_key=key, by=command_actor())
        return f"{agent} is retired; {by} has its name and fleet"

    _change(settings, uuid, work)


@click.group()
def fleets() -> None:
    """Agents that belong together."""


@fleets.command("add")
@click.argument("name", type=Text(200))
@TENANT
@click.pass_obj
def fleets_add(settings: Settings, name: str, tenant: str) -> None:
    """Make a fleet; prints its id."""

    async def work(tx: Tx) -> str:
        return str((await fleets_.add(tx, await find_tenant(tx, tenant), name, by=command_actor())).fleet_uuid)

    click.echo(in_database(settings, work))


@fleets.command("list")
@TENANT
@click.pass_obj
def fleets_list(settings: Settings, tenant: str) -> None:
    """List a tenant's fleets."""

    async def work(tx: Tx) -> list[str]:
        found = await fleets_.page(tx, await find_tenant(tx, tenant), after=None, limit=100_000)
        return [f"{fleet.fleet_uuid}  {fleet.name}" for fleet in found]

    click.echo(format_list(in_database(settings, work), "none"))


def _change(settings: Settings, uuid: UUID, work: Callable[[Tx, TenantId, AgentId], Awaitable[str]]) -> None:
    async def found(tx: Tx) -> str:
        return await work(tx, *await _owner(tx, uuid))

    click.echo(in_database(settings, found))


async def _owner(tx: Tx, uuid: UUID) -> tuple[TenantId, AgentId]:
    owner = (await agents_.tenants_of(tx, [uuid])).get(uuid)
    if owner is None:
        raise NotFound(f"there is no agent {uuid}; `iotistica agents list` shows them")
    return owner, AgentId(uuid)


def _connection(settings: Settings, key: bytes, tenant: TenantId, agent: AgentId, generation: int) -> str:
    found = broker_connection.mqtt_connection(
        settings.agents_broker(), tenant, agent, mqtt_password(key, tenant, agent, generation)
    )
    broker, topic = found.broker_config, found.topics.publish[0].removesuffix("/#")
    return (
        f"uuid      {agent}\nhost      {broker.host}:{broker.port}\n"
        f"username  {found.username}\npassword  {found.password}\ntopic     {topic}\n\n"
        f"mosquitto_pub -h {broker.host} -p {broker.port} -q 1 -u '{found.username}' -P '{found.password}' \\\n"
        f"  -t '{topic}/endpoints/modbus' -m '{EXAMPLE}'"
    )
