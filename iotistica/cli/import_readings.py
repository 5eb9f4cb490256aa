"""The command that brings history in."""

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

TELL_EVERY = 2.0  # seconds


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tenant", default="default", show_default=True, help="Name or id.")
@click.option("--agent", required=True, type=click.UUID, help="Whose readings these become.")
@click.option("--protocol", default="import", show_default=True, help="Of rows that name none.")
@click.pass_obj
def import_(settings: Settings, file: Path, tenant: str, agent: UUID, protocol: str) -> None:
    """Bring in readings from a CSV, Parquet or Arrow FILE, such as an export.

    It needs columns time, value, and metric or metric_name; unit, quality, protocol, device_name, device_uuid,
    endpoint_uuid, extra, anomaly_score and anomaly_threshold are taken too. Times without a zone are UTC. What is
    stored already stays as it is, so after an interruption run it again. Ends with 1 if rows were rejected.
    """
    began = told = time.monotonic()

    def tell(outcome: ImportResult) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            click.echo(f"{outcome.rows:>12,} rows, {outcome.rows / (told - began):,.0f} a second", err=True)

    async def work(url: str) -> ImportResult:
        async with opened(url, configure=readings.create_staging_table) as database:
            async with database.transaction() as tx:
                owner = await find_tenant(tx, tenant)
                if await agents.get(tx, owner, agent) is None:
                    raise NotFound(f"tenant {tenant!r} has no agent {agent}; `iotistica agents list` shows them")
            return await file_import.import_file(
                database,
                file,
                owner,
                agent,
                protocol=protocol,
                retention_days=settings.retention_days,
                told=tell,
            )

    with database_url(settings) as url:
        schema.migrate(url)
        outcome = run(work(url))
    click.echo(
        f"{outcome.rows:,} rows: {outcome.stored:,} stored, {outcome.duplicate:,} were there already"
        f" ({outcome.conflict:,} with another value), {sum(outcome.rejected.values()):,} rejected"
    )
    for reason, count in sorted(outcome.rejected.items()):
        click.echo(f"  rejected, {reason}: {count:,}")
    for number, why in outcome.bad:
        click.echo(f"    row {number:,}: {why}")
    if outcome.texts:
        click.echo(f"  {outcome.texts:,} of the values are text and no numbers; they are kept as text")
    if outcome.rejected:
        raise SystemExit(1)
