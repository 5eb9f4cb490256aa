"""The commands that run and maintain a process. This is the only module that reads environment variables."""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

import click

from iotistica import __version__, listening_socket, log, setting_descriptions, setting_sources
from iotistica import roles as roles_
from iotistica.cli import (
    agents,
    audit,
    dead_letters,
    disk_usage,
    first_start,
    import_readings,
    incidents,
    provisioning_keys,
    rules,
    simulate,
    targets,
    tenants,
    users,
    why,
)
from iotistica.cli.database import database_url, run, server_key
from iotistica.cli.running_instance import settings_of_instance
from iotistica.embedded import data_folder, servers
from iotistica.errors import CannotStart, IotisticaError
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.telemetry import timescale as timescale_
from iotistica.storage.telemetry.continuous_aggregates import PolicyAges

FILES: Final = 65_536  # limit of open files
AS_SET: Final = ("serve", "broker", "config")  # commands that mean the settings of their own environment
RESTART_SECONDS: Final = 60.0  # until the embedded servers of a restarted process run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and manage Iotistica, the platform for fleets of edge agents."""
    settings = setting_sources.load(os.environ)
    log.configure(settings.log_level, settings.log_format)
    context.obj = settings if context.invoked_subcommand in AS_SET else settings_of_instance(settings)
    for name in setting_descriptions.unknown(os.environ):
        click.echo(f"iotistica: {setting_descriptions.unknown_message(name)}", err=True)


for command in (
    *(tenants.tenants, users.users, agents.agents, agents.fleets, provisioning_keys.keys),
    *(dead_letters.dead_letters, audit.audit, import_readings.import_, disk_usage.disk),
    *(rules.rules, incidents.incidents, targets.targets, simulate.simulate),
):
    cli.add_command(command)
agents.agents.add_command(why.why)


@cli.command()
@click.option(
    "--roles",
    default="",
    help="Roles of this process, separated by commas: api, ingest, http, mqtt, background.  [default: all]",
)
@click.option("--demo", is_flag=True, help="Also run 20 simulated agents in the tenant `demo`.")
@click.pass_obj
def serve(settings: Settings, roles: str, demo: bool) -> None:
    """Start the platform and serve until a signal stops it.

    PostgreSQL, Valkey and Mosquitto are started too, unless a URL in the settings names an external server.
    """
    from iotistica import app, resources  # imported late, so that the other commands start without Litestar

    listening_socket.ignore_restart_signal()
    _raise_open_files_limit()
    groups = roles_.groups_of([role.strip() for role in roles.split(",") if role.strip()])
    settings.agents_broker()  # a wrong address must not be noticed only after the first password is made
    settings.allowed_origins()
    key = server_key(settings, make=True)
    with _servers(settings, key) as embedded:
        listener = app.open_port(settings, groups, os.environ)
        url = embedded.database_url if embedded else settings.database_url
        schema.migrate(url)
        timescale_.apply_policies(url, ages_of(settings))
        if not settings.database_url:
            resources.enable_role_logins(url, key)
        owner = run(first_start.create_owner(url, settings, key))
        click.echo(first_start.welcome(settings, groups, owner, with_demo=demo), nl=False)
        is_restart = run(app.serve(settings, groups, key, embedded, listener, with_demo=demo))
        ended = listening_socket.collect_stop_signals() if is_restart else []
    if is_restart and not ended:
        listening_socket.restart_process(listener, os.environ)


@cli.command()
@click.pass_obj
def broker(settings: Settings) -> None:
    """Run only the MQTT broker (Mosquitto).

    Its accounts come from the database that IOTISTICA_DATABASE_URL names. This is the command of the broker's
    container.
    """
    from iotistica import app

    listening_socket.ignore_restart_signal()
    if not settings.database_url:
        raise CannotStart("Set IOTISTICA_DATABASE_URL: the broker's accounts are in PostgreSQL.")
    if not settings.secret_key:
        raise CannotStart(
            "Set IOTISTICA_SECRET_KEY to the same value as in the other processes: passwords derive from it."
        )
    with servers.running(settings, server_key(settings), ("broker",)) as embedded:
        listener = app.open_port(settings, (), os.environ)
        if embedded.broker is None:
            raise CannotStart(
                "Unset IOTISTICA_MQTT_URL: this command runs the broker instead of using another one."
            )
        schema.migrate(settings.database_url)
        is_restart = run(app.broker(settings, server_key(settings), embedded, listener))
        ended = listening_socket.collect_stop_signals() if is_restart else []
    if is_restart and not ended:
        listening_socket.restart_process(listener, os.environ)


@cli.command()
@click.pass_obj
def restart(settings: Settings) -> None:
    """Restart the instance on this data folder.

    It then runs the version that is installed now. Its HTTP port stays open during the restart.
    """
    before = data_folder.runtime(settings.data_path)
    if before is None:
        raise CannotStart(
            "No instance runs on this data folder. To restart a process that uses only external servers,"
            " send it SIGUSR2."
        )
    os.kill(before.pid, signal.SIGUSR2)
    end = time.monotonic() + RESTART_SECONDS
    while (now := data_folder.runtime(settings.data_path)) is None or now.children == before.children:
        if time.monotonic() > end:
            raise CannotStart(
                f"Process {before.pid} did not restart within {RESTART_SECONDS:.0f} s. Its log shows the cause."
            )
        time.sleep(0.1)
    click.echo(f"process {now.pid} has restarted")


def _raise_open_files_limit() -> None:
    """Raise the limit of open files to `FILES` or the hard limit: each connection is one, many systems allow 1,024.

    Not higher than `FILES`: the embedded servers inherit the limit, and some allocate tables of that length.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _servers(settings: Settings, key: bytes) -> Iterator[servers.Servers | None]:
    if settings.database_url and settings.redis_url and settings.mqtt_url:
        yield None
        return
    with servers.running(settings, key) as embedded:
        yield embedded


@cli.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Upgrade the database schema to the newest revision."""
    with database_url(settings, make=True) as url:
        changed = schema.migrate(url)
        click.echo(f"the schema is at revision {schema.newest_revision()}{'' if changed else ' already'}")


@cli.command()
@click.pass_obj
def timescale(settings: Settings) -> None:
    """Convert the database to TimescaleDB, with all its data.

    Stop all processes of the platform first.
    """
    if not settings.database_url:
        raise CannotStart("Set IOTISTICA_DATABASE_URL: the built-in PostgreSQL does not have TimescaleDB.")
    schema.migrate(settings.database_url)
    moved = timescale_.move(settings.database_url, ages_of(settings), click.echo)
    click.echo("converted to TimescaleDB" if moved else "the database already uses TimescaleDB")


def ages_of(settings: Settings) -> PolicyAges:
    """Return the ages, in days, at which data is compressed and deleted."""
    return PolicyAges(
        raw=settings.retention_days,
        minutes=settings.minutes_days,
        hours=settings.hours_days,
        compress=settings.compress_days,
    )


@cli.command()
@click.option("--markdown", is_flag=True, help="Print the page docs/configuration.md instead.")
@click.pass_obj
def config(settings: Settings, markdown: bool) -> None:
    """Show every setting with its meaning and value."""
    if markdown:
        click.echo(setting_descriptions.page(), nl=False)
        return
    for name, value, meaning in setting_descriptions.describe(settings):
        click.echo(f"# {meaning}\n{name}={value}\n")


def main() -> None:
    """Run the command line; an error is printed on one line, and the exit code is then not 0."""
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
