"""The commands that change the schema of the database."""

import click

from iotistica.cli.database import database_url
from iotistica.errors import CannotStart
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.telemetry import timescale as timescale_
from iotistica.storage.telemetry.continuous_aggregates import PolicyAges


@click.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Upgrade the database schema to the newest revision."""
    with database_url(settings, make=True) as url:
        changed = schema.migrate(url)
        click.echo(f"the schema is at revision {schema.newest_revision()}{'' if changed else ' already'}")


@click.command()
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
