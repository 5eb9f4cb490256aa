"""Examples of requests and answers: in the OpenAPI document, and on a page of the documentation.

They are recorded from a running instance by `tests/e2e/test_examples.py`, which also checks them.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

FILE: Final = Path(__file__).with_name("examples.json")
_TYPE: Final = re.compile(r":[a-z]+}")

Schema = dict[str, Any]


def without_types(path: str) -> str:
    """Return a path as OpenAPI writes it: `/agents/{agent:uuid}` is `/agents/{agent}`."""
    return _TYPE.sub("}", path)


@lru_cache(maxsize=1)
def load() -> dict[str, dict[str, Any]]:
    """Return the examples by route, such as `GET /api/v1/agents`."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return found


def with_examples(schema: Schema) -> Schema:
    """Add the examples to an OpenAPI document, in place."""
    for route, example in load().items():
        method, _, path = route.partition(" ")
        operation = schema["paths"].get(path, {}).get(method.lower())
        if operation is None:
            continue
        values = {**example["path"], **example["query"]}
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in values:
                parameter["example"] = values[parameter["name"]]
        if example["body"] is not None:  # a route that reads the body itself has none in the schema
            body = operation.setdefault("requestBody", {"required": True, "content": {}})
            _show(body["content"], example["body"])
        if example["answer"] is not None:
            answer = operation["responses"].setdefault(str(example["status"]), {"description": "Done"})
            _show(answer.setdefault("content", {}), example["answer"])
    return schema


def _show(content: Schema, example: Any) -> None:
    """Add an example to each media type, or to JSON if there is none."""
    for media in content.values() if content else [content.setdefault("application/json", {})]:
        media["example"] = example


class ExamplesJson(JsonRenderPlugin):
    """The OpenAPI document with the examples."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Schema) -> bytes:
        return super().render(request, with_examples(openapi_schema))


def page() -> str:
    """Return the documentation page of the examples, in Markdown."""
    sections: dict[str, list[str]] = {}
    for route, example in load().items():
        _, _, path = route.partition(" ")
        area = path.removeprefix("/api/v1/").split("/")[0] or "service"
        sections.setdefault("service" if "/" not in path[1:] else area, []).append(_entry(route, example))
    head = (
        "# Examples of HTTP requests\n\n"
        "`tests/e2e/test_examples.py` records this page from a running instance, and checks it.\n\n"
        "In the commands, `$API` is the address, such as `http://127.0.0.1:3002`, `$TOKEN` an access token\n"
        "or API key, and `$SITE` the address of the dashboard. Lists are cut to two rows, and secrets to\n"
        "their beginning.\n"
    )
    return head + "".join(f"\n## {area}\n" + "".join(entries) for area, entries in sorted(sections.items()))


def _entry(route: str, example: dict[str, Any]) -> str:
    method, _, template = route.partition(" ")
    path = template.format(**example["path"]) + (f"?{urlencode(example['query'])}" if example["query"] else "")
    command = f"curl -s{'' if method == 'GET' else f' -X {method}'} '$API{path}'".replace("'", '"')
    command += "" if example["public"] else ' -H "Authorization: Bearer $TOKEN"'
    if example["body"] is not None:
        body = json.dumps(example["body"], ensure_ascii=False)
        command += f" \\\n  -H 'Content-Type: application/json' -d '{body}'"
    answer = example["answer"]
    if answer is None:
        shown = f"{example['status']}, without content\n"
    elif isinstance(answer, str):
        shown = f"```text\n{answer.rstrip()}\n```\n"
    else:
        shown = f"```json\n{json.dumps(answer, indent=1, ensure_ascii=False)}\n```\n"
    return f"\n### {method} {template}\n\n```sh\n{command}\n```\n\n{shown}"
