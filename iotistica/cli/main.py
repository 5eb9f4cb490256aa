"""The command line: its commands, each in a module of its own, and how errors are printed."""

import os
import sys
from typing import Final

import click

from iotistica import __version__, log, setting_descriptions, setting_sources
from iotistica.cli.command_groups import LazyGroup
from iotistica.cli.running_instance import settings_of_instance
from iotistica.errors import IotisticaError

AS_SET: Final = ("serve", "broker", "config")  # commands that mean the settings of their own environment
COMMANDS: Final = {
    "agents": "iotistica.cli.agents:agents",
    "audit": "iotistica.cli.audit:audit",
    "broker": "iotistica.cli.serve:broker",
    "config": "iotistica.cli.config:config",
    "dead-letters": "iotistica.cli.dead_letters:dead_letters",
    "disk": "iotistica.cli.disk_usage:disk",
    "fleets": "iotistica.cli.agents:fleets",
    "import": "iotistica.cli.import_readings:import_",
    "incidents": "iotistica.cli.incidents:incidents",
    "keys": "iotistica.cli.provisioning_keys:keys",
    "migrate": "iotistica.cli.migrate:migrate",
    "restart": "iotistica.cli.restart:restart",
    "rules": "iotistica.cli.rules:rules",
    "serve": "iotistica.cli.serve:serve",
    "simulate": "iotistica.cli.simulate:simulate",
    "targets": "iotistica.cli.targets:targets",
    "tenants": "iotistica.cli.tenants:tenants",
    "timescale": "iotistica.cli.migrate:timescale",
    "users": "iotistica.cli.users:users",
}


@click.group(cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and manage Iotistica, the platform for fleets of edge agents."""
    settings = setting_sources.load(os.environ)
    log.configure(settings.log_level, settings.log_format)
    context.obj = settings if context.invoked_subcommand in AS_SET else settings_of_instance(settings)
    for name in setting_descriptions.unknown(os.environ):
        click.echo(f"iotistica: {setting_descriptions.unknown_message(name)}", err=True)


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
