"""The commands that manage agents and fleets."""

import secrets
import shlex
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import click

from iotistica.cli.arguments import TENANT, Text, command_actor, format_list
from iotistica.cli.command_groups import LazyGroup
from iotistica.cli.database import find_tenant, in_database, server_key
from iotistica.domain.access import credentials
from iotistica.domain.agents import broker_connection
from iotistica.domain.agents.broker_connection import BrokerConfig
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
PUBLIC_CAS = "/etc/ssl/certs/ca-certificates.crt"  # of Debian; mosquitto_pub uses TLS only with a CA file
UUID_ = click.argument("uuid", type=click.UUID)


@click.group(cls=LazyGroup, places={"why": "iotistica.cli.why:why"})
def agents() -> None:
    """Manage agents (edge gateways)."""


@agents.command("add")
@click.argument("name", required=False, type=Text(200))
@click.option("--uuid", "uuid_", type=click.UUID, help="UUID of the agent.  [default: random]")
@TENANT
@click.pass_obj
def add(settings: Settings, name: str | None, uuid_: UUID | None, tenant: str) -> None:
    """Create an agent and print its connection to the broker.

    Without NAME the agent is called `agent-` and the first eight characters of its UUID.
    """
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
    """Print an agent's state and, if it is active, its connection."""
    key = server_key(settings)

    async def work(tx: Tx) -> str:
        owner, agent = await _owner(tx, uuid)
        row = await agents_.get(tx, owner, agent)
        assert row is not None  # noqa: S101 its tenant was found
        facts = f"name      {row.name}\ntenant    {owner}\nstate     {row.state}"
        if row.replaced_by:
            facts += f"\nsuccessor {row.replaced_by}"
        if row.state != "active":
            return facts
        generation = await broker_accounts.generation(tx, owner, agent)
        return f"{facts}\n{_connection(settings, key, owner, agent, generation)}"

    click.echo(in_database(settings, work))


@agents.command("list")
@TENANT
@click.pass_obj
def list_(settings: Settings, tenant: str) -> None:
    """List a tenant's agents: UUID, state, time last seen and name."""

    async def work(tx: Tx) -> list[str]:
        rows = await agent_search.page(tx, await find_tenant(tx, tenant), AgentFilter(), limit=100_000)
        seen = [a.last_seen.isoformat(" ", "seconds") if a.last_seen else "never seen" for a in rows]
        return [
            f"{a.agent_uuid}  {a.state:10}  {when:25}  {a.name}"
            + (f"  -> {a.replaced_by}" if a.replaced_by else "")
            for a, when in zip(rows, seen, strict=True)
        ]

    click.echo(format_list(in_database(settings, work), "none"))


@agents.command("rotate")
@UUID_
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, 720),
    help="Hours after which the old key ends in any case.  [default: IOTISTICA_KEY_GRACE_HOURS]",
)
@click.pass_obj
def rotate(settings: Settings, uuid: UUID, grace_hours: float | None) -> None:
    """Create a new API key for an agent and print it.

    The old key stays valid until the agent uses the new key, or until the grace hours have passed.
    """
    key = server_key(settings)
    secret = credentials.new(key, credentials.AGENT, secrets.token_bytes(credentials.ENTROPY))
    hours = settings.key_grace_hours if grace_hours is None else grace_hours
    until = datetime.now(UTC) + timedelta(hours=hours)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.rotate(tx, tenant, agent, secret.digest, until=until, by=command_actor())
        return (
            f"api key   {secret.text}\n"
            "The agent's previous key stays valid until the agent uses this key,"
            f" at the latest until {until:%Y-%m-%d %H:%M} UTC."
        )

    _change(settings, uuid, work)


@agents.command("revoke")
@UUID_
@click.option("--reason", type=Text(500), help="Reason for the audit log.")
@click.pass_obj
def revoke(settings: Settings, uuid: UUID, reason: str | None) -> None:
    """Lock an agent out of HTTP and MQTT at once.

    Its readings are kept.
    """
    key = server_key(settings)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.revoke(tx, tenant, agent, reason=reason, server_key=key, by=command_actor())
        return f"{agent} is revoked. To let it register again, use `iotistica agents re-enrol`."

    _change(settings, uuid, work)


@agents.command("re-enrol")
@UUID_
@click.option(
    "--hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, 720, min_open=True),
    help="Hours in which the agent can register.",
)
@click.pass_obj
def re_enrol(settings: Settings, uuid: UUID, hours: float) -> None:
    """Let an agent register again, for example after a factory reset.

    Its history is kept.
    """
    key, until = server_key(settings), datetime.now(UTC) + timedelta(hours=hours)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.re_enrol(tx, tenant, agent, until=until, server_key=key, by=command_actor())
        return f"{agent} can register with a provisioning key until {until.isoformat(' ', 'seconds')}"

    _change(settings, uuid, work)


@agents.command("retire")
@UUID_
@click.pass_obj
def retire(settings: Settings, uuid: UUID) -> None:
    """Take an agent out of service permanently.

    Its readings are kept.
    """
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
    """Replace the agent UUID by the agent BY.

    BY is new hardware that has already registered. It gets the name and the fleet of UUID, which is retired.
    """
    key = server_key(settings)

    async def work(tx: Tx, tenant: TenantId, agent: AgentId) -> str:
        await identities.replace(tx, tenant, agent, by, server_key=key, by=command_actor())
        return f"{agent} is retired; {by} now has its name and fleet"

    _change(settings, uuid, work)


@click.group()
def fleets() -> None:
    """Manage fleets (groups of agents)."""


@fleets.command("add")
@click.argument("name", type=Text(200))
@TENANT
@click.pass_obj
def fleets_add(settings: Settings, name: str, tenant: str) -> None:
    """Create a fleet and print its id."""

    async def work(tx: Tx) -> str:
        return str((await fleets_.add(tx, await find_tenant(tx, tenant), name, by=command_actor())).fleet_uuid)

    click.echo(in_database(settings, work))


@fleets.command("list")
@TENANT
@click.pass_obj
def fleets_list(settings: Settings, tenant: str) -> None:
    """List a tenant's fleets."""

    async def work(tx: Tx) -> list[str]:
        rows = await fleets_.page(tx, await find_tenant(tx, tenant), after=None, limit=100_000)
        return [f"{fleet.fleet_uuid}  {fleet.name}" for fleet in rows]

    click.echo(format_list(in_database(settings, work), "none"))


def _change(settings: Settings, uuid: UUID, work: Callable[[Tx, TenantId, AgentId], Awaitable[str]]) -> None:
    async def change(tx: Tx) -> str:
        return await work(tx, *await _owner(tx, uuid))

    click.echo(in_database(settings, change))


async def _owner(tx: Tx, uuid: UUID) -> tuple[TenantId, AgentId]:
    owner = (await agents_.tenants_of(tx, [uuid])).get(uuid)
    if owner is None:
        raise NotFound(f"There is no agent {uuid}. `iotistica agents list` lists the agents of a tenant.")
    return owner, AgentId(uuid)


def _connection(settings: Settings, key: bytes, tenant: TenantId, agent: AgentId, generation: int) -> str:
    connection = broker_connection.mqtt_connection(
        settings.agents_broker(), tenant, agent, mqtt_password(key, tenant, agent, generation)
    )
    broker, topic = connection.broker_config, connection.topics.publish[0].removesuffix("/#")
    return (
        f"uuid      {agent}\nbroker    {connection.broker}\nhost      {broker.host}:{broker.port}\n"
        f"username  {connection.username}\npassword  {connection.password}\ntopic     {topic}\n\n"
        + _example(broker, topic, settings.agents_ca_file or PUBLIC_CAS)
    )


def _example(broker: BrokerConfig, topic: str, ca_file: str) -> str:
    """Return a command that sends a reading as this agent."""
    if broker.protocol in ("ws", "wss"):
        return (
            f"Send readings with a client that speaks MQTT over WebSocket to {topic}/endpoints/modbus:\n{EXAMPLE}"
        )
    cafile = f" --cafile {shlex.quote(ca_file)}" if broker.use_tls else ""
    return (
        f"mosquitto_pub -h {broker.host} -p {broker.port}{cafile} -q 1"
        f" -u '{broker.username}' -P '{broker.password}' \\\n"
        f"  -t '{topic}/endpoints/modbus' -m '{EXAMPLE}'"
    )
