"""Collects every SQL statement of the code, for the tests that check them."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from psycopg import sql

import iotistica

OWNERS = {"continuous_aggregates", "timescale", "schema"}
"""Modules of storage that run as the owner of the tables, for the whole installation; their statements are left out."""
_STATEMENT = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE\s+\w+|DELETE FROM|WITH\s+\w+|COPY|CREATE|ALTER|DROP|TRUNCATE|SET|LOCK|LISTEN|NOTIFY"
    r"|CALL|GRANT|REVOKE)\b"
)
_PART = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|SET|COPY|CREATE|FROM)\b")
_RUNS = {"execute", "executemany", "copy", "stream", "fetch_rows", "fetch_row"}
"""Functions and methods whose arguments are statements."""


@cache
def statements() -> dict[str, str]:
    """Return the SQL of the code by name: `module.CONSTANT`, `module.CONSTANT[key]` or `module.function`.

    Contains the upper-case constants of the modules of storage (also inside dicts, tuples, lists, structs and
    classes) and the literals inside functions of all modules. Constants with a leading underscore count only if
    they are whole statements. In a literal of a function, values that are not constants are written `<name>`.
    """
    found: dict[str, str] = {}
    for info in pkgutil.walk_packages(iotistica.__path__, "iotistica."):
        name = info.name.removeprefix("iotistica.")
        is_storage = name.startswith("storage.")
        area = name.rpartition(".")[2] if is_storage else name
        if area not in OWNERS and not name.startswith("__"):
            module = importlib.import_module(info.name)
            found |= statements_of(module, area) if is_storage else dict(_literals(area, module))
    return found


def statements_of(module: Any, area: str) -> dict[str, str]:
    """Return the statements of one module: of its constants and of its functions."""
    return dict(_constants(area, vars(module), module.__name__)) | dict(_literals(area, module))


def _constants(area: str, names: dict[str, Any], module: str) -> Iterator[tuple[str, str]]:
    for name, value in names.items():
        if inspect.isclass(value) and value.__module__ == module:
            yield from _constants(f"{area}.{name}", dict(vars(value)), module)
        elif name.isupper():
            pattern = _STATEMENT.match if name.startswith("_") else _PART.search
            for key, text in _strings(value):
                if " " in text and "redis.call" not in text and pattern(text):
                    yield f"{area}.{name}{key}", text


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, sql.Composable):
        yield key, value.as_string()
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, f"{key}[{name}]")
    elif isinstance(value, (tuple, list, set, frozenset)):
        for number, item in enumerate(value):
            yield from _strings(item, f"{key}[{number}]")
    elif isinstance(value, msgspec.Struct):
        yield from _strings({name: getattr(value, name) for name in value.__struct_fields__}, key)


def _literals(area: str, module: Any) -> Iterator[tuple[str, str]]:
    assert module.__file__
    for path, function in _functions(ast.parse(Path(module.__file__).read_text())):
        texts = [text for text in _texts(function, module) if "redis.call" not in text]
        for number, text in enumerate(dict.fromkeys(texts)):
            yield f"{area}.{path}" + (f"[{number}]" if number else ""), text


def _functions(node: ast.AST, path: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield functions with their names; a function inside a function counts as part of that."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield path + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{path}{child.name}.")
        else:
            yield from _functions(child, path)


def _texts(node: ast.AST, module: Any, *, runs: bool = False) -> Iterator[str]:
    """Yield the literals that look like a statement, and (`runs`) all that are executed; skips docstrings."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        text = _rendered(child, module)
        if text is not None:
            if _STATEMENT.match(text) or (runs and " " in text):
                yield text
            continue
        yield from _texts(child, module, runs=isinstance(child, ast.Call) and _called(child) in _RUNS)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _rendered(node: ast.AST, module: Any) -> str | None:
    """Return the text of a literal, an f-string or a sum with one, else None; constants of the module are inserted."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(v.value if isinstance(v, ast.FormattedValue) else v, module) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_rendered(side, module) for side in (node.left, node.right)]
        if any(side is not None for side in sides):
            return "".join(_part(side, module) for side in (node.left, node.right))
    return None


def _part(node: ast.AST, module: Any) -> str:
    text = _rendered(node, module)
    if text is None and isinstance(node, ast.Name) and isinstance(value := getattr(module, node.id, None), str):
        return value
    return f"<{ast.unparse(node)}>" if text is None else text
