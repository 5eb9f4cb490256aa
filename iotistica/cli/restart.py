"""The command that restarts the instance on this data folder."""

import os
import signal
import time
from typing import Final

import click

from iotistica.embedded import data_folder
from iotistica.errors import CannotStart
from iotistica.settings import Settings

RESTART_SECONDS: Final = 60.0  # until the embedded servers of a restarted process run


@click.command()
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
