"""The commands that run something; the only reader of the environment."""

import asyncio
import contextlib
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from iotistica import __version__, listening_socket, log
from iotistica import roles as roles_
from iotistica import settings as settings_
from iotistica.cli import (
    agents,
    audit,
    dead_letters,
    disk_usage,
    import_readings,
    provisioning_keys,
    tenants,
    users,
)
from iotistica.cli.database import database_url, opened, run, server_key
from iotistica.embedded import data_folder, servers
from iotistica.errors import CannotStart, Conflict, IotisticaError
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.access import tenants as tenants_
from iotistica.storage.access import users as users_
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.telemetry import timescale as timescale_
from iotistica.storage.telemetry.continuous_aggregates import PolicyAges

FILES: Final = 65_536
RESTART_SECONDS: Final = 60.0  # until the servers of a process that starts anew run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """A home in the cloud for edge agents."""
    context.obj = settings_.load(os.environ)
    log.configure(context.obj.log_level, context.obj.log_format)
    for name in settings_.unknown(os.environ):
        click.echo(f"iotistica: {name} is no setting; `iotistica config` lists them", err=True)


for command in (
    *(tenants.tenants, users.users, agents.agents, agents.fleets, provisioning_keys.keys),
    *(dead_letters.dead_letters, audit.audit, import_readings.import_, disk_usage.disk),
):
    cli.add_command(command)


@cli.command()
@click.option("--roles", default="", help="Some of api, ingest, http, mqtt, background; all unless given.")
@click.option("--demo", is_flag=True, help="Also run 20 simulated agents in a tenant `demo`.")
@click.pass_obj
def serve(settings: Settings, roles: str, demo: bool) -> None:
    """Start everything that no URL names, and serve until a signal."""
    from iotistica import app, resources  # the other commands need not wait for Litestar

    listening_socket.ignore_restart_signal()
    _raise_files()
    groups = roles_.groups_of([role.strip() for role in roles.split(",") if role.strip()])
    key = server_key(settings, make=True)
    with _servers(settings, key) as embedded:
        listener = app.open_port(settings, groups, os.environ)
        url = embedded.database_url if embedded else settings.database_url
        schema.migrate(url)
        timescale_.apply_policies(url, ages_of(settings))
        if not settings.database_url:
            resources.let_roles_in(url, key)
        run(_first_start(url, settings))
        anew = run(app.serve(settings, groups, key, embedded, listener, with_demo=demo))
        ended = listening_socket.collect_stop_signals() if anew else []
    if anew and not ended:
        listening_socket.restart_process(listener, os.environ)


@cli.command()
@click.pass_obj
def broker(settings: Settings) -> None:
    """Run Mosquitto alone and give it its accounts, in a container of its own beside the database."""
    from iotistica import app

    listening_socket.ignore_restart_signal()
    if not settings.database_url:
        raise CannotStart("set IOTISTICA_DATABASE_URL: the broker's accounts are in PostgreSQL")
    if not settings.secret_key:
        raise CannotStart("set IOTISTICA_SECRET_KEY to that of the other processes: passwords derive from it")
    with servers.running(settings, server_key(settings), ("broker",)) as embedded:
        listener = app.open_port(settings, (), os.environ)
        if embedded.broker is None:
            raise CannotStart("unset IOTISTICA_MQTT_URL: this command runs the broker that it would name")
        schema.migrate(settings.database_url)
        anew = run(app.broker(settings, server_key(settings), embedded, listener))
        ended = listening_socket.collect_stop_signals() if anew else []
    if anew and not ended:
        listening_socket.restart_process(listener, os.environ)


@cli.command()
@click.pass_obj
def restart(settings: Settings) -> None:
    """Start the instance on this data folder anew, with what is installed now; its HTTP port stays open."""
    before = data_folder.runtime(settings.data_path)
    if before is None:
        raise CannotStart("nothing runs on this data folder; send a process with servers of your own a SIGUSR2")
    os.kill(before.pid, signal.SIGUSR2)
    end = time.monotonic() + RESTART_SECONDS
    while (now := data_folder.runtime(settings.data_path)) is None or now.children == before.children:
        if time.monotonic() > end:
            raise CannotStart(f"process {before.pid} does not start anew; its log says why")
        time.sleep(0.1)
    click.echo(f"process {now.pid} has started anew")


def _raise_files() -> None:
    """Allow `FILES` open files if we may: each connection is one, and many systems begin with 1,024.

    No more than that: our servers inherit it, and some make tables of that length.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


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
@click.option("--messages", default=0, type=click.IntRange(0), help="Of each agent, then end; 0 goes on.")
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

    plan = fleet.SimulationPlan(agents=count, messages=messages, seed=seed, **options)
    url = settings.mqtt_url
    if not url and (found := data_folder.runtime(settings.data_path)):
        url = found.mqtt_url
    if not url:
        raise CannotStart("nothing runs on this data folder; start `iotistica serve`, or set IOTISTICA_MQTT_URL")

    async def work(where: str) -> None:
        async with opened(where) as database:
            members = await fleet.enlist(database, server_key(settings), tenant, plan.agents)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stop.set)
        report = await fleet.run(plan, members, url, stop)
        click.echo(report.text())

    with database_url(settings) as where:
        run(work(where))


@cli.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date."""
    with database_url(settings, make=True) as url:
        changed = schema.migrate(url)
        click.echo(f"the schema is at revision {schema.newest_revision()}{'' if changed else ' already'}")


@cli.command()
@click.pass_obj
def timescale(settings: Settings) -> None:
    """Move the database to TimescaleDB, with everything in it; stop the platform's processes first."""
    if not settings.database_url:
        raise CannotStart("set IOTISTICA_DATABASE_URL: a PostgreSQL of our own has no TimescaleDB")
    schema.migrate(settings.database_url)
    moved = timescale_.move(settings.database_url, ages_of(settings), click.echo)
    click.echo("moved to TimescaleDB" if moved else "this database is one of TimescaleDB already")


def ages_of(settings: Settings) -> PolicyAges:
    """The ages of what is kept."""
    return PolicyAges(
        raw=settings.retention_days,
        minutes=settings.minutes_days,
        hours=settings.hours_days,
        compress=settings.compress_days,
    )


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


async def _first_start(url: str, settings: Settings) -> None:
    """Make the tenant `default` and its owner, where they are missing."""
    password = settings.admin_password or secrets.token_urlsafe(12)
    async with opened(url) as database:
        with contextlib.suppress(Conflict):  # another process may start for the first time beside us
            async with database.transaction() as tx:
                tenant = await tenants_.find(tx, "default") or await tenants_.add(tx, "default", by=PLATFORM)
                if await users_.any_of(tx, tenant.tenant_id) is not None:
                    return
                digest = await users_.hashed(password)
                await users_.add(tx, tenant.tenant_id, settings.admin_email, digest, "owner", by=PLATFORM)
            if not settings.admin_password:
                click.echo(f"\n  First owner: {settings.admin_email}  password: {password}  (shown only now)\n")


def main() -> None:
    """Run the command line; what goes wrong is one line and a code that is not 0."""
    try:
        cli(prog_name="iotistica", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except IotisticaError as exc:
        click.echo("iotistica: " + " ".join(str(exc).split()), err=True)
        sys.exit(1)
