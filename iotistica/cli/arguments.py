"""Option and argument types that several commands share."""

import os
import pwd
import socket

import click

from iotistica.domain.access.permissions import ROLES
from iotistica.storage.history.audit import Actor


class Text(click.ParamType[str]):
    """Text of 1 to `longest` printable characters."""

    name = "text"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.strip() or len(value) > self._longest or not value.isprintable():
            self.fail(f"must have 1 to {self._longest} printable characters", param, ctx)
        return value


def command_actor() -> Actor:
    """Return the actor for the audit log.

    Its name is the terminal's login, also under sudo, else the process's user; its address is the host name.
    """
    try:
        name = os.getlogin()
    except OSError:
        name = pwd.getpwuid(os.getuid()).pw_name
    return Actor(kind="command", name=name, address=socket.gethostname())


def printable(text: str) -> str:
    """Return text from outside with unprintable characters replaced, so that it is safe on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def format_list(lines: list[str], empty: str) -> str:
    """Return the lines joined for printing, or `empty` in parentheses if there are none."""
    return "\n".join(lines) or f"({empty})"


TENANT = click.option("--tenant", default="default", show_default=True, help="Name or id of the tenant.")
ROLE = click.option(
    "--role", default="viewer", show_default=True, type=click.Choice(list(ROLES)), help="Role of the user."
)
