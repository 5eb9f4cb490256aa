"""The command that tells how long the disk will do."""

import shutil
from datetime import UTC, datetime

import click

from iotistica.cli.database import in_database
from iotistica.domain.telemetry.disk_budget import forecast, reserve
from iotistica.settings import Settings
from iotistica.storage.telemetry import disk_usage

LONG = 3650  # days


@click.command()
@click.pass_obj
def disk(settings: Settings) -> None:
    """Show what readings take on the disk, and when it is full."""
    found = in_database(settings, disk_usage.measure)
    ours = not settings.database_url
    usage = shutil.disk_usage(settings.data_path) if ours else None
    most = int(settings.budget_gb * 1e9)
    seen = forecast(found.days, found.rollups, usage and usage.free, datetime.now(UTC).date(), most)
    lines = [
        ("readings", f"{_size(found.total - found.rollups)} in {len(found.days)} days"),
        ("rollups", _size(found.rollups)),
        ("a day", f"{_size(seen.bytes_a_day)}, by the last week" if seen.bytes_a_day else "no whole day yet"),
    ]
    if settings.budget_gb:
        lines.append(("budget", f"{settings.budget_gb:g} GB, beyond which the oldest days go"))
    if usage is not None:
        kept = settings.disk_reserve_mb << 20 or reserve(usage.total)
        lines.append(("free", f"{_size(usage.free)} of {_size(usage.total)}, {_size(kept)} of it kept free"))
    left = "the database is elsewhere: look at its disk" if usage is None else "nothing can be said yet"
    if seen.days_left is not None:
        days = f"{seen.days_left:.0f} days" if seen.days_left < LONG else "more than ten years"
        left = f"{days}, until the {seen.full} is full"
    lines.append(("left", left))
    for name, text in lines:
        click.echo(f"{name:10}{text}")


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
