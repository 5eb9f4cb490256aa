"""The types with which the dashboard calls the API."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.application import openapi

WEB = Path(__file__).parents[2] / "web"
TYPES = WEB / "src" / "api" / "schema.d.ts"
TEXTS = {"description", "summary", "example", "examples", "tags", "operationId", "title"}
OPTIONS = ["--default-non-nullable", "false", "--root-types", "--root-types-no-schema-prefix"]


def compact(node: Any) -> Any:
    """What types need: no texts, and of the answers only those of success."""
    if isinstance(node, list):
        return [compact(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "responses" in node:
        answers = node["responses"].items()
        responses = {status: {**one, "description": ""} for status, one in answers if status.startswith("2")}
        node = {**node, "responses": responses}
    return {name: compact(value) for name, value in node.items() if not _is_text(name, value)}


def _is_text(name: str, value: Any) -> bool:
    """The format wants the description of an answer, so an empty one stays."""
    return name in TEXTS and isinstance(value, (str, list)) and bool(value)


def generated(folder: Path) -> str:
    """The types as they follow from the routes."""
    schema = compact(openapi())
    schema["info"] = {"title": "Iotistica", "version": "1"}
    schema["paths"] = {path: item for path, item in schema["paths"].items() if path.startswith("/api/v1/")}
    (folder / "openapi.json").write_text(json.dumps(schema))
    command = [sys.executable, str(WEB / "build.py"), "npm", "run", "--silent", "types", "--"]
    subprocess.run(
        [*command, str(folder / "openapi.json"), *OPTIONS, "--output", str(folder / "schema.d.ts")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return (folder / "schema.d.ts").read_text()


def test_the_types_of_the_dashboard_are_those_of_the_api(tmp_path: Path) -> None:
    """A route that changes without them would break the page unnoticed; IOTISTICA_TEST_WRITE_TYPES=1 writes them."""
    text = generated(tmp_path)
    if os.environ.get("IOTISTICA_TEST_WRITE_TYPES"):
        TYPES.write_text(text)
    assert TYPES.read_text() == text, "run IOTISTICA_TEST_WRITE_TYPES=1 ./run test tests/web/test_api_types.py"
