"""Rules of the house that a machine can check."""

import ast
from pathlib import Path

import pytest

from iotistica import setting_descriptions, setting_sources, settings
from iotistica.domain.access.permissions import AGENT, BROKER, PERMISSIONS, PUBLIC
from tests.application import http_routes

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "iotistica").rglob("*.py"))


def test_every_route_names_its_permission() -> None:
    """A route that forgets to is refused by this, and by the guard."""
    handlers = [handler for path, handler in http_routes() if not path.startswith("/schema")]
    assert len(handlers) > 50
    for handler in handlers:
        if handler.handler_name != "options_handler" and "OPTIONS" not in handler.http_methods:
            assert handler.opt.get("permission") in {PUBLIC, AGENT, BROKER, *PERMISSIONS}, handler


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    """One noun in one layer: a sentence at its head, at most 300 lines, no `global`."""
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    assert len(text.splitlines()) <= 300
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree))


CHECKS = ("agents.get(", "_check_agent(")
"""Reads that only decide between 404 and an answer."""


def test_an_answer_made_of_several_statements_reads_one_snapshot() -> None:
    """Or a commit between two of them makes an answer that was true at no moment.

    Answers about readings first read what is covered, then the rows in it: a commit in between is in the next answer.
    """
    torn = []
    for path in (ROOT / "iotistica" / "api").rglob("*.py"):
        if path.parent.name == "telemetry":
            continue
        for handler in ast.walk(ast.parse(path.read_text())):
            if isinstance(handler, ast.AsyncFunctionDef) and any(
                ast.unparse(one).startswith("get(") for one in handler.decorator_list
            ):
                torn += [f"{path.name}: {handler.name}" for block in ast.walk(handler) if _is_torn(block)]
    assert torn == []


def _is_torn(block: ast.AST) -> bool:
    if not isinstance(block, ast.AsyncWith) or "transaction(" not in ast.unparse(block.items[0]):
        return False
    reads = [ast.unparse(node.value) for node in ast.walk(block) if isinstance(node, ast.Await)]
    several = len([read for read in reads if not read.startswith(CHECKS)]) > 1
    return several and "snapshot=True" not in ast.unparse(block.items[0])


def test_only_the_command_line_reads_the_environment() -> None:
    """Everything else gets its settings as arguments."""
    readers = {path.name for path in CODE if "os.environ" in path.read_text()}
    assert readers <= {"main.py", "serve.py", "mosquitto.py"}  # the latter for PATH alone, to find the program


def test_settings_read_the_environment_and_hide_secrets() -> None:
    """Text becomes numbers, passwords become stars."""
    loaded = setting_sources.load(
        {"IOTISTICA_HTTP_PORT": "8080", "IOTISTICA_ADMIN_PASSWORD": "hush", "PATH": "/bin"}
    )
    assert loaded.http_port == 8080
    shown = {name: value for name, value, _ in setting_descriptions.describe(loaded)}
    assert shown["IOTISTICA_ADMIN_PASSWORD"] == "***"
    assert setting_descriptions.mask("postgresql://me:secret@host:5432/db") == "postgresql://me:***@host:5432/db"


def test_every_setting_is_documented() -> None:
    """The page is written by `iotistica config --markdown`."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, _, meaning in setting_descriptions.describe(settings.Settings()):
        assert f"`{name}`" in page
        assert meaning in page
