"""The command that shows disk usage and predicts when the disk is full."""

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
    """Show how much disk readings use, and when it will be full."""
    measured = in_database(settings, disk_usage.measure)
    is_builtin = not settings.database_url
    usage = shutil.disk_usage(settings.data_path) if is_builtin else None
    budget = int(settings.budget_gb * 1e9)
    prediction = forecast(measured.filled, measured.rollups, usage and usage.free, datetime.now(UTC).date(), budget)
    a_day = prediction.bytes_a_day
    lines = [
        ("readings", f"{_size(measured.total - measured.rollups)} in {len(measured.filled)} days"),
        ("rollups", _size(measured.rollups)),
        (
            "growth",
            f"{_size(a_day)} a day, average of the last week" if a_day else "unknown until the first whole day",
        ),
    ]
    if settings.budget_gb:
        lines.append(("budget", f"{settings.budget_gb:g} GB; above that the oldest days are deleted"))
    if usage is not None:
        kept = settings.disk_reserve_mb << 20 or reserve(usage.total)
        lines.append(("free", f"{_size(usage.free)} of {_size(usage.total)}, of which {_size(kept)} stay free"))
    left = (
        "unknown: the database is external; check its disk"
        if usage is None
        else "unknown until the first whole day"
    )
    if prediction.days_left is not None:
        days = f"{prediction.days_left:.0f} days" if prediction.days_left < LONG else "more than ten years"
        left = f"{days}, until the {prediction.full} is full"
    lines.append(("full in", left))
    for name, text in lines:
        click.echo(f"{name:10}{text}")


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
