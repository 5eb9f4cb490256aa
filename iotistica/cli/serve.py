"""The commands that run a process until a signal stops it."""

import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Final

import click

from iotistica import app, listening_socket, resources
from iotistica import roles as roles_
from iotistica.cli import first_start
from iotistica.cli.database import run, server_key
from iotistica.cli.migrate import ages_of
from iotistica.embedded import servers
from iotistica.errors import CannotStart
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.telemetry import timescale

FILES: Final = 65_536  # limit of open files


@click.command()
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
        timescale.apply_policies(url, ages_of(settings))
        if not settings.database_url:
            resources.enable_role_logins(url, key)
        owner = run(first_start.create_owner(url, settings, key))
        click.echo(first_start.welcome(settings, groups, owner, with_demo=demo), nl=False)
        is_restart = run(app.serve(settings, groups, key, embedded, listener, with_demo=demo))
        ended = listening_socket.collect_stop_signals() if is_restart else []
    if is_restart and not ended:
        listening_socket.restart_process(listener, os.environ)


@click.command()
@click.pass_obj
def broker(settings: Settings) -> None:
    """Run only the MQTT broker (Mosquitto).

    Its accounts come from the database that IOTISTICA_DATABASE_URL names. This is the command of the broker's
    container.
    """
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
