"""The command that imports readings from a file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click

from iotistica.cli.database import database_url, find_tenant, opened, run
from iotistica.domain import time_ranges
from iotistica.domain.telemetry.import_layout import FIELDS, IGNORE, Layout
from iotistica.domain.telemetry.import_values import DateOrder
from iotistica.domain.telemetry.readings import Reading
from iotistica.errors import NotFound
from iotistica.ingest import file_import
from iotistica.ingest.file_import import ImportOptions, ImportResult, Preview
from iotistica.settings import Settings
from iotistica.storage import schema
from iotistica.storage.agents import agents
from iotistica.storage.telemetry import readings

PROGRESS_SECONDS = 2.0  # seconds between progress lines where there is no terminal
Progress = Callable[[ImportResult, int], None]


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tenant", default="default", show_default=True, help="Name or id of the tenant.")
@click.option("--agent", type=click.UUID, help="UUID of the agent to which the readings belong.")
@click.option("--protocol", default="import", show_default=True, help="Protocol of rows that do not have one.")
@click.option("--dry-run", is_flag=True, help="Show what is understood of the file, and store nothing.")
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="COLUMN=FIELD",
    help="What a column is: a field such as time or device_name, metric:NAME for values of a metric, or ignore.",
)
@click.option(
    "--date-format",
    type=click.Choice(["iso", "us", "german"]),
    default="iso",
    help="Order of dates such as 11/12/2026: month first, or day first. Other dates are understood without it.",
)
@click.option("--tz", default="UTC", show_default=True, help="Time zone of times that do not name one.")
@click.pass_obj
def import_(
    settings: Settings,
    file: Path,
    tenant: str,
    agent: UUID | None,
    protocol: str,
    dry_run: bool,
    mapped: tuple[str, ...],
    date_format: str,
    tz: str,
) -> None:
    """Import readings from a FILE: CSV, JSON lines, Parquet or Arrow, also compressed with gzip.

    The kind, the encoding, the separator, decimal commas and the columns are recognised. The file can be an export
    of this platform, of InfluxDB (annotated CSV), Grafana, ThingsBoard or Home Assistant, or any table with a
    column for the time and either columns for metric and value or one column for each metric. --dry-run shows what
    was understood; --map overrules it.

    Readings that are already stored are not changed, so an interrupted import can simply be run again. The exit
    code is 1 if rows were rejected.
    """
    options = ImportOptions(
        protocol=protocol,
        retention_days=settings.retention_days,
        mapped=_mapped(mapped),
        date_order=_ORDERS[date_format],
        zone=time_ranges.parse_zone(tz),
    )
    if dry_run:
        with _progress(file) as progress:
            found = file_import.preview(file, options, on_progress=progress)
        _print_preview(file, found)
        _print_rejected(found.result)
        return
    if agent is None:
        raise click.UsageError("Name the agent with --agent, or try the file with --dry-run.")

    async def work(url: str, progress: Progress) -> ImportResult:
        async with opened(url, configure=readings.create_staging_table) as database:
            async with database.transaction() as tx:
                owner = await find_tenant(tx, tenant)
                if await agents.get(tx, owner, agent) is None:
                    raise NotFound(
                        f"The tenant {tenant!r} has no agent {agent}."
                        " `iotistica agents list --tenant` lists its agents."
                    )
            return await file_import.import_file(database, file, owner, agent, options, on_progress=progress)

    with database_url(settings) as url:
        schema.migrate(url)
        with _progress(file) as progress:
            outcome = run(work(url, progress))
    readings_ = "" if outcome.readings == outcome.rows else f", {outcome.readings:,} readings"
    click.echo(
        f"{outcome.rows:,} rows{readings_}: {outcome.stored:,} stored,"
        f" {outcome.duplicate:,} were already stored ({outcome.conflict:,} with another value),"
        f" {sum(outcome.rejected.values()):,} rejected"
    )
    _print_rejected(outcome)
    if outcome.rejected:
        raise SystemExit(1)


_ORDERS: dict[str, DateOrder | None] = {"iso": None, "us": "us", "german": "german"}


def _mapped(pairs: tuple[str, ...]) -> dict[str, str]:
    mapped = {}
    for pair in pairs:
        column, _, field = pair.rpartition("=")
        if not column or not (field in FIELDS or field == IGNORE or field.startswith("metric:")):
            raise click.UsageError(
                f"--map {pair!r}: expected is COLUMN=FIELD, where FIELD is one of {', '.join(FIELDS)},"
                f" metric:NAME or {IGNORE}."
            )
        mapped[column] = field
    return mapped


@contextlib.contextmanager
def _progress(file: Path) -> Iterator[Progress]:
    """Show a bar on a terminal, and a line every two seconds elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(length=file.stat().st_size, label=file.name, file=sys.stderr) as bar:

            def advance(result: ImportResult, position: int) -> None:
                bar.label = f"{file.name}: {result.readings:,} readings"
                bar.update(max(position - bar.pos, 0))

            yield advance
        return
    began = printed = time.monotonic()

    def print_line(result: ImportResult, _: int) -> None:
        nonlocal printed
        if time.monotonic() - printed > PROGRESS_SECONDS:
            printed = time.monotonic()
            click.echo(
                f"{result.readings:>12,} readings, {result.readings / (printed - began):,.0f} a second", err=True
            )

    yield print_line


def _print_rejected(outcome: ImportResult) -> None:
    for reason, count in sorted(outcome.rejected.items()):
        click.echo(f"  rejected, {reason}: {count:,}")
    for number, why in outcome.bad:
        click.echo(f"    row {number:,}: {why}")
    if outcome.texts:
        click.echo(f"  {outcome.texts:,} of the values are not numbers; they are stored as text")


def _print_preview(file: Path, found: Preview) -> None:
    click.echo(f"{file.name}: {found.kind}{f' ({found.detail})' if found.detail else ''}")
    if not found.layouts:
        click.echo("  each line is a message as devices send it")
    for layout in found.layouts[:3]:
        _print_layout(layout)
    click.echo("first readings")
    for reading in found.first:
        click.echo(f"  {_time(reading.time)}  {reading.metric_name}  {_value(reading)}  {reading.quality}")
    click.echo(f"{found.result.rows:,} rows, {found.result.readings:,} readings, {found.series:,} series")
    if found.start is not None and found.end is not None:
        click.echo(f"  from {_time(found.start)} to {_time(found.end)}")


_SHAPES = {
    "long": "each row is one reading",
    "wide": "each row has a reading of each metric",
    "influx": "annotated CSV of InfluxDB",
}


def _print_layout(layout: Layout) -> None:
    decimals = ", decimal comma" if "," in layout.decimals.values() else ""
    dates = {"us": ", dates are month/day/year", "german": ", dates are day.month.year"}.get(
        layout.date_order or "", ""
    )
    click.echo(f"  {_SHAPES[layout.shape]}{decimals}{dates}")
    for field, column in layout.columns.items():
        click.echo(f"  {field:<14} from the column {_printable(column)!r}")
    if layout.clock:
        click.echo(f"  {'time of day':<14} from the column {_printable(layout.clock)!r}")
    if layout.tags:
        first = "" if layout.shape == "wide" else "_measurement, "
        click.echo(f"  device_name    also from {first}{', '.join(map(_printable, layout.tags))}")
    for one in layout.series[:20]:
        unit = f" in {_printable(one.unit)}" if one.unit else ""
        click.echo(f"  metric {_printable(one.metric)!r}{unit} from the column {_printable(one.column)!r}")
    if len(layout.series) > 20:
        click.echo(f"  … and {len(layout.series) - 20} more metrics")
    if layout.ignored:
        click.echo(f"  not used: {', '.join(map(_printable, layout.ignored))}")


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(reading: Reading) -> str:
    text = str((reading.extra or {}).get("text", "null")) if reading.value is None else f"{reading.value:.15g}"
    return _printable(f"{text} {reading.unit}" if reading.unit else text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:60])
