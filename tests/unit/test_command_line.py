"""The command line: which commands there are, and what their start costs."""

import subprocess
import sys

import click
import pytest
from click.exceptions import NoSuchCommand

from iotistica.cli.agents import agents
from iotistica.cli.main import COMMANDS, cli


@pytest.mark.parametrize("group", [cli, agents], ids=["iotistica", "agents"])
def test_every_command_is_where_it_is_said_to_be(group: click.Group) -> None:
    """It has the name under which it is found, and help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str()


@pytest.mark.parametrize(("group", "typed", "meant"), [(cli, "agnets", "agents"), (agents, "wyh", "why")])
def test_a_mistyped_command_is_told_what_may_be_meant(group: click.Group, typed: str, meant: str) -> None:
    """Among all commands, and not only among those that are imported."""
    with pytest.raises(NoSuchCommand) as told:
        group.resolve_command(click.Context(group), [typed])
    assert f"'{meant}'" in told.value.format_message()


def test_a_command_imports_nothing_that_it_does_not_use() -> None:
    """No web framework and no database driver before the command is known: `--version` answers at once."""
    code = "import sys, iotistica.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {"click", "iotistica.cli.main"} <= set(done.stdout.split())
    assert not {"litestar", "psycopg", "redis", "iotistica.cli.agents"} & set(done.stdout.split())
    assert len(COMMANDS) == len(set(COMMANDS.values()))
