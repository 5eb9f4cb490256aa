"""The command line: the only reader of the environment."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID, uuid4

import click
import uvloop

from iotistica import __version__, log
from iotistica import settings as settings_
from iotistica.domain.accounts import mqtt_password
from iotistica.domain.ids import AgentId, TenantId, agent_topic, agent_user, tenant_id
from iotistica.embedded import home, servers
from iotistica.errors import CannotStart, Conflict, IotisticaError
from iotistica.settings import Settings
from iotistica.storage import agents as agents_
from iotistica.storage import postgres
from iotistica.storage import tenants as tenants_
from iotistica.storage import users as users_
from iotistica.storage.postgres import Database, Tx

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """A home in the cloud for edge agents."""
    context.obj = settings_.load(os.environ)
    log.configure(context.obj.log_level, context.obj.log_format)


def main() -> None:
    """Run the command line; what goes wrong is one line and a code that is not 0."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except IotisticaError as exc:
        click.echo("iotistica: " + " ".join(str(exc).split()), err=True)
        sys.exit(1)


@cli.command()
@click.option("--roles", default="", help="Some of api, ingest, http, mqtt, background; all unless given.")
@click.option("--demo", is_flag=True, help="Also run 20 simulated agents in a tenant `demo`.")
@click.pass_obj
def serve(settings: Settings, roles: str, demo: bool) -> None:
    """Start everything that no URL names, and serve until a signal."""
    from iotistica import app  # the other commands need not wait for Litestar

    wanted = [role.strip() for role in roles.split(",") if role.strip()]
    app.groups_of(wanted)
    key = _key(settings)
    with _servers(settings, key) as embedded:
        url = embedded.database_url if embedded else settings.database_url
        postgres.migrate(url)
        _run(_first_start(url, settings))
        _run(app.serve(settings, wanted, key, embedded, with_demo=demo))


@contextlib.contextmanager
def _servers(settings: Settings, key: bytes) -> Iterator[servers.Servers | None]:
    if settings.database_url and settings.redis_url and settings.mqtt_url:
        yield None
        return
    with servers.running(settings, key) as embedded:
        yield embedded


@cli.command()
@click.option("--agents", "count", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--tenant", default="demo", show_default=True, help="Made if it is missing.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0), help="Seconds between messages.")
@click.option("--messages", default=0, help="Of each agent, then end; 0 goes on.")
@click.option("--readings", default=10, show_default=True, type=click.IntRange(1, 1000), help="In a message.")
@click.option("--series", default=10, show_default=True, type=click.IntRange(1, 1000), help="Of each agent.")
@click.option("--encoding", default="json", show_default=True,
              type=click.Choice(["json", "msgpack", "deflate", "both", "mix"]))  # fmt: skip
@click.option("--full", is_flag=True, help="Readings of 1 kB, as the real agent sends them.")
@click.option("--duplicates", default=0.0, type=click.FloatRange(0, 1), help="Share of messages sent twice.")
@click.option("--bad", default=0.0, type=click.FloatRange(0, 1), help="Share of readings that must be rejected.")
@click.option("--skew", default=0.0, help="Seconds the agents' clocks are ahead.")
@click.option("--seed", default=1, show_default=True)
@click.pass_obj
def simulate(settings: Settings, /, count: int, tenant: str, messages: int, seed: int, **options: Any) -> None:
    """Run agents that publish as real ones do, against the instance on this data folder."""
    from iotistica.simulate import fleet

    plan = fleet.Plan(agents=count, messages=messages, seed=seed, **options)
    url = settings.mqtt_url
    if not url and (found := home.runtime(settings.data_path)):
        url = found.mqtt_url
    if not url:
        raise CannotStart("nothing runs on this data folder; start `iotistica serve`, or set IOTISTICA_MQTT_URL")

    async def work(database_url: str) -> None:
        async with _opened(database_url) as database:
            members = await fleet.enlist(database, _key(settings), tenant, plan.agents)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stop.set)
        report = await fleet.run(plan, members, url, stop)
        click.echo(report.text())

    with _database_url(settings) as database_url:
        _run(work(database_url))


@cli.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date."""
    with _database_url(settings) as url:
        changed = postgres.migrate(url)
        click.echo(f"the schema is at revision {postgres.newest_revision()}{'' if changed else ' already'}")


@cli.command()
@click.option("--markdown", is_flag=True, help="Write the page docs/configuration.md instead.")
@click.pass_obj
def config(settings: Settings, markdown: bool) -> None:
    """Show every setting, its value and its meaning."""
    if markdown:
        click.echo(settings_.page(), nl=False)
        return
    for name, value, meaning in settings_.describe(settings):
        click.echo(f"# {meaning}\n{name}={value}\n")


@cli.group()
def tenants() -> None:
    """Customers, each with its own agents and users."""


@tenants.command("add")
@click.argument("name")
@click.option("--id", "id_", help="12 lower-case hex characters; random unless given.")
@click.pass_obj
def tenants_add(settings: Settings, name: str, id_: str | None) -> None:
    """Make a tenant."""
    try:
        wanted = tenant_id(id_) if id_ else None
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--id") from exc

    async def work(tx: Tx) -> None:
        tenant = await tenants_.add(tx, name, wanted)
        click.echo(tenant.tenant_id)

    _in_database(settings, work)


@tenants.command("list")
@click.pass_obj
def tenants_list(settings: Settings) -> None:
    """List the tenants."""

    async def work(tx: Tx) -> None:
        for tenant in await tenants_.all_tenants(tx):
            click.echo(f"{tenant.tenant_id}  {'enabled ' if tenant.enabled else 'disabled'}  {tenant.name}")

    _in_database(settings, work)


@cli.group()
def users() -> None:
    """Operators."""


@users.command("add")
@click.argument("email")
@click.option("--tenant", default="default", show_default=True, help="Its name or id.")
@click.option("--role", default="viewer", show_default=True,
              type=click.Choice(["owner", "admin", "manager", "operator", "viewer"]))  # fmt: skip
@click.option("--password", envvar="IOTISTICA_USER_PASSWORD", help="Generated and printed unless given.")
@click.pass_obj
def users_add(settings: Settings, email: str, tenant: str, role: str, password: str | None) -> None:
    """Make a user of a tenant."""
    secret = password or secrets.token_urlsafe(12)

    async def work(tx: Tx) -> None:
        owner = await _tenant(tx, tenant)
        user = await users_.add(tx, owner, email, secret, role)
        click.echo(f"{user.email}  {user.role}" + ("" if password else f"  password {secret}"))

    _in_database(settings, work)


@cli.group()
def agents() -> None:
    """Edge gateways."""


@agents.command("add")
@click.argument("name", required=False)
@click.option("--uuid", "uuid_", type=click.UUID, help="Random unless given.")
@click.option("--tenant", default="default", show_default=True, help="Its name or id.")
@click.pass_obj
def agents_add(settings: Settings, name: str | None, uuid_: UUID | None, tenant: str) -> None:
    """Make an agent; prints how it connects."""
    agent, key = AgentId(uuid_ or uuid4()), _key(settings)

    async def work(tx: Tx) -> None:
        owner = await _tenant(tx, tenant)
        await agents_.add(tx, owner, agent, name or f"agent-{str(agent)[:8]}", key=key)
        click.echo(f"uuid      {agent}")
        click.echo(f"host      {settings.agents_host}:{settings.mqtt_port}")
        click.echo(f"username  {agent_user(owner, agent)}")
        click.echo(f"password  {mqtt_password(key, agent, 1)}")
        click.echo(f"topic     {agent_topic(owner, agent)}/endpoints/<protocol>")

    _in_database(settings, work)


def _key(settings: Settings) -> bytes:
    if settings.secret_key:
        return home.parse_key(settings.secret_key, "IOTISTICA_SECRET_KEY")
    return home.server_key(settings.data_path)


async def _tenant(tx: Tx, name: str) -> TenantId:
    found = await tenants_.find(tx, name)
    if found is None:
        raise CannotStart(f"there is no tenant {name!r}; `iotistica tenants list` shows them")
    return found.tenant_id


async def _first_start(url: str, settings: Settings) -> None:
    """Make the tenant `default` and its owner, where they are missing."""
    async with _opened(url) as database, database.transaction() as tx:
        with contextlib.suppress(Conflict):
            await tenants_.add(tx, "default")
        tenant = await _tenant(tx, "default")
        if await users_.any_of(tx, tenant) is not None:
            return
        password = settings.admin_password or secrets.token_urlsafe(12)
        await users_.add(tx, tenant, settings.admin_email, password, "owner")
        if not settings.admin_password:
            click.echo(f"\n  First owner: {settings.admin_email}  password: {password}  (shown only now)\n")


@contextlib.asynccontextmanager
async def _opened(url: str) -> Any:
    database = Database(url, size=2, name="cli", statement_seconds=30)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def _database_url(settings: Settings) -> Iterator[str]:
    """The configured database, that of the running instance, or one started for this command alone."""
    if settings.database_url:
        yield settings.database_url
    elif found := home.runtime(settings.data_path):
        yield found.database_url
    else:
        with servers.running(settings, _key(settings), broker=False) as embedded:
            yield embedded.database_url


def _in_database(settings: Settings, work: Callable[[Tx], Awaitable[None]]) -> None:
    async def inside(url: str) -> None:
        async with _opened(url) as database, database.transaction() as tx:
            await work(tx)

    with _database_url(settings) as url:
        postgres.migrate(url)
        _run(inside(url))


def _run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
