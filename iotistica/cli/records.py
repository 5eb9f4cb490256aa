"""The commands about tenants, users and agents."""

import secrets
from uuid import UUID, uuid4

import click

from iotistica.cli.database import in_database, key_of, tenant_named
from iotistica.domain.accounts import mqtt_password
from iotistica.domain.ids import AgentId, TenantId, agent_topic, agent_user, tenant_id
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage import agents as agents_
from iotistica.storage import tenants as tenants_
from iotistica.storage import users as users_
from iotistica.storage.postgres import Tx

EXAMPLE = '{"readings": [{"deviceName": "plc-1", "metric": "temperature", "value": 21.5, "unit": "degC"}]}'


class Text(click.ParamType[str]):
    """Text of 1 to `longest` characters."""

    name = "text"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not len(value.strip()) >= 1 or len(value) > self._longest:
            self.fail(f"needs 1 to {self._longest} characters", param, ctx)
        return value


@click.group()
def tenants() -> None:
    """Customers, each with its own agents and users."""


@tenants.command("add")
@click.argument("name", type=Text(100))
@click.option("--id", "id_", help="12 lower-case hex characters; random unless given.")
@click.pass_obj
def tenants_add(settings: Settings, name: str, id_: str | None) -> None:
    """Make a tenant."""
    try:
        wanted = tenant_id(id_) if id_ is not None else None
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--id") from exc

    async def work(tx: Tx) -> str:
        return (await tenants_.add(tx, name, wanted)).tenant_id

    click.echo(in_database(settings, work))


@tenants.command("list")
@click.pass_obj
def tenants_list(settings: Settings) -> None:
    """List the tenants."""

    async def work(tx: Tx) -> list[str]:
        found = await tenants_.all_tenants(tx)
        return [f"{t.tenant_id}  {'enabled ' if t.enabled else 'disabled'}  {t.name}" for t in found]

    click.echo("\n".join(in_database(settings, work)))


@click.group()
def users() -> None:
    """Operators."""


@users.command("add")
@click.argument("email", type=Text(254))
@click.option("--tenant", default="default", show_default=True, help="Its name or id.")
@click.option("--role", default="viewer", show_default=True,
              type=click.Choice(["owner", "admin", "manager", "operator", "viewer"]))  # fmt: skip
@click.option("--password", envvar="IOTISTICA_USER_PASSWORD", help="Generated and printed unless given.")
@click.pass_obj
def users_add(settings: Settings, email: str, tenant: str, role: str, password: str | None) -> None:
    """Make a user of a tenant."""
    secret = password or secrets.token_urlsafe(12)

    async def work(tx: Tx) -> str:
        user = await users_.add(tx, await tenant_named(tx, tenant), email, secret, role)
        return f"{user.email}  {user.role}" + ("" if password else f"  password {secret}")

    click.echo(in_database(settings, work))


@click.group()
def agents() -> None:
    """Edge gateways."""


@agents.command("add")
@click.argument("name", required=False, type=Text(200))
@click.option("--uuid", "uuid_", type=click.UUID, help="Random unless given.")
@click.option("--tenant", default="default", show_default=True, help="Its name or id.")
@click.pass_obj
def agents_add(settings: Settings, name: str | None, uuid_: UUID | None, tenant: str) -> None:
    """Make an agent; prints how it connects."""
    agent, key = AgentId(uuid_ or uuid4()), key_of(settings)
    label = name if name is not None else f"agent-{str(agent)[:8]}"

    async def work(tx: Tx) -> str:
        owner = await tenant_named(tx, tenant)
        await agents_.add(tx, owner, agent, label, key=key)
        return _connection(settings, key, owner, agent)

    click.echo(in_database(settings, work))


@agents.command("show")
@click.argument("uuid", type=click.UUID)
@click.pass_obj
def agents_show(settings: Settings, uuid: UUID) -> None:
    """Print how an agent connects, again."""
    key = key_of(settings)

    async def work(tx: Tx) -> str:
        owner = (await agents_.owners(tx, [uuid])).get(uuid)
        if owner is None:
            raise NotFound(f"there is no agent {uuid}; `iotistica agents list` shows them")
        return _connection(settings, key, owner, AgentId(uuid))

    click.echo(in_database(settings, work))


@agents.command("list")
@click.option("--tenant", default="default", show_default=True, help="Its name or id.")
@click.pass_obj
def agents_list(settings: Settings, tenant: str) -> None:
    """List a tenant's agents, and when each was last seen."""

    async def work(tx: Tx) -> list[str]:
        found = await agents_.page(tx, await tenant_named(tx, tenant), after=None, limit=100_000)
        seen = [a.last_seen.isoformat(" ", "seconds") if a.last_seen else "never seen" for a in found]
        return [f"{a.agent_uuid}  {when:25}  {a.name}" for a, when in zip(found, seen, strict=True)]

    click.echo("\n".join(in_database(settings, work)))


def _connection(settings: Settings, key: bytes, tenant: TenantId, agent: AgentId) -> str:
    password = mqtt_password(key, agent, 1)
    host, user, topic = settings.agents_host, agent_user(tenant, agent), agent_topic(tenant, agent)
    return (
        f"uuid      {agent}\nhost      {host}:{settings.mqtt_port}\n"
        f"username  {user}\npassword  {password}\ntopic     {topic}\n\n"
        f"mosquitto_pub -h {host} -p {settings.mqtt_port} -q 1 -u '{user}' -P '{password}' \\\n"
        f"  -t '{topic}/endpoints/modbus' -m '{EXAMPLE}'"
    )
