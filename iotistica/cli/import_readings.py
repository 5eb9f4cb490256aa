"""The command that imports readings from a file."""

import time
from pathlib import Path
from uuid import UUID

import click

from iotistica.cli.database import database_url, find_tenant, opened, run
from iotistica.errors import NotFound
from iotistica.ingest import file_import
from iotistica.ingest.file_import import ImportResult
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.agents import agents
from iotistica.storage.telemetry import readings

PROGRESS_SECONDS = 2.0  # seconds between progress lines


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tenant", default="default", show_default=True, help="Name or id of the tenant.")
@click.option("--agent", required=True, type=click.UUID, help="UUID of the agent to which the readings belong.")
@click.option("--protocol", default="import", show_default=True, help="Protocol of rows that do not have one.")
@click.pass_obj
def import_(settings: Settings, file: Path, tenant: str, agent: UUID, protocol: str) -> None:
    """Import readings from a CSV, Parquet or Arrow FILE.

    The file can be an export of this platform. It must have the columns time, value, and metric or metric_name. The
    columns unit, quality, protocol, device_name, device_uuid, endpoint_uuid, extra, anomaly_score and
    anomaly_threshold are optional. Times without a time zone are UTC.

    Readings that are already stored are not changed, so an interrupted import can simply be run again. The exit
    code is 1 if rows were rejected.
    """
    began = printed = time.monotonic()

    def print_progress(outcome: ImportResult) -> None:
        nonlocal printed
        if time.monotonic() - printed > PROGRESS_SECONDS:
            printed = time.monotonic()
            click.echo(f"{outcome.rows:>12,} rows, {outcome.rows / (printed - began):,.0f} per second", err=True)

    async def work(url: str) -> ImportResult:
        async with opened(url, configure=readings.create_staging_table) as database:
            async with database.transaction() as tx:
                owner = await find_tenant(tx, tenant)
                if await agents.get(tx, owner, agent) is None:
                    raise NotFound(
                        f"The tenant {tenant!r} has no agent {agent}."
                        " `iotistica agents list --tenant` lists its agents."
                    )
            return await file_import.import_file(
                database,
                file,
                owner,
                agent,
                protocol=protocol,
                retention_days=settings.retention_days,
                on_progress=print_progress,
            )

    with database_url(settings) as url:
        schema.migrate(url)
        outcome = run(work(url))
    click.echo(
        f"{outcome.rows:,} rows: {outcome.stored:,} stored, {outcome.duplicate:,} were already stored"
        f" ({outcome.conflict:,} with another value), {sum(outcome.rejected.values()):,} rejected"
    )
    for reason, count in sorted(outcome.rejected.items()):
        click.echo(f"  rejected, {reason}: {count:,}")
    for number, why in outcome.bad:
        click.echo(f"    row {number:,}: {why}")
    if outcome.texts:
        click.echo(f"  {outcome.texts:,} of the values are not numbers; they are stored as text")
    if outcome.rejected:
        raise SystemExit(1)
