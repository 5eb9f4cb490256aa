"""A group of commands that are imported when they are used, so that each command starts at once."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

import click
from click.exceptions import NoSuchCommand


class LazyGroup(click.Group):
    """A group whose commands are named by where they are defined, such as `iotistica.cli.users:users`."""

    def __init__(self, *arguments: Any, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(context), *self._places})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command with this name; None if there is none."""
        if name not in self._places:
            return super().get_command(context, name)
        module, _, attribute = self._places[name].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of these arguments; raises `NoSuchCommand`, which names those that may be meant."""
        try:
            return super().resolve_command(context, arguments)
        except NoSuchCommand as exc:  # knows only the commands that are imported
            raise NoSuchCommand(arguments[0], possibilities=self.list_commands(context), ctx=context) from exc
