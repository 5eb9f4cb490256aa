"""Types of what people type."""

import os
import pwd
import socket

import click

from iotistica.domain.access.permissions import ROLES
from iotistica.storage.history.audit import Actor


class Text(click.ParamType[str]):
    """Text of 1 to `longest` characters that print."""

    name = "text"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.strip() or len(value) > self._longest or not value.isprintable():
            self.fail(f"needs 1 to {self._longest} characters that print", param, ctx)
        return value


def command_actor() -> Actor:
    """Who types: the log-in of the terminal, also under sudo, else the process's user; and on which machine."""
    try:
        name = os.getlogin()
    except OSError:
        name = pwd.getpwuid(os.getuid()).pw_name
    return Actor(kind="command", name=name, address=socket.gethostname())


def format_list(lines: list[str], empty: str) -> str:
    """Lines to print, or what to say when there are none."""
    return "\n".join(lines) or f"({empty})"


TENANT = click.option("--tenant", default="default", show_default=True, help="Its name or id.")
ROLE = click.option(
    "--role", default="viewer", show_default=True, type=click.Choice(list(ROLES)), help="What the user may do."
)
