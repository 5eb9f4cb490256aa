"""The dashboard's own checks, and what the server and the page must agree on."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from iotistica.api.page import page

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"


def builder() -> ModuleType:
    """The script `web/build.py`."""
    spec = importlib.util.spec_from_file_location("web_build", WEB / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def npm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WEB / "build.py"), "npm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The page, built unless it is already; this installs the packages, too."""
    done = subprocess.run([sys.executable, str(WEB / "build.py")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_code_of_the_page_has_no_faults() -> None:
    """Types, unused code, accessibility and format, as `npm run check` says."""
    done = npm("run", "--silent", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_of_the_page_hold() -> None:
    """Those that need no browser: times, numbers, grids, differences; as `npm run test` says."""
    done = npm("run", "--silent", "test")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_has_a_path_that_the_server_knows() -> None:
    """A link to any page can be opened in a new tab."""
    paths = re.findall(r"'/([a-z]*)[^']*'", (WEB / "src" / "routes.ts").read_text().partition("routes: Route[]")[2])
    assert {path for path in paths if path} == set(page.PATHS)


def test_no_component_relies_on_the_styles_of_another() -> None:
    """What several components share is in `styles/`: the other component may not be loaded yet."""
    sources = {path: path.read_text().partition("<style") for path in sorted((WEB / "src").rglob("*.svelte"))}
    faults = [
        f"{path.name} styles .{name}, which {user.name} has, too"
        for path, (own, _, styles) in sources.items()
        for name in global_classes(styles)
        for user, (markup, _, _) in sources.items()
        if user != path
        and f"/{user.name}')" not in own  # which it loads itself
        and re.search(rf"class[=:][^>]*(?<![\w-]){name}(?![\w-])", markup)
    ]
    assert sum(len(global_classes(styles)) for _, _, styles in sources.values()) > 10
    assert faults == []


def global_classes(styles: str) -> set[str]:
    """The classes that a component styles wherever they are."""
    blocks = re.findall(r":global \{\n(.*?)\n  \}", styles, re.DOTALL)
    selectors = [line for block in blocks for line in re.findall(r"^ {4}(\..*)(?:,| \{)$", block, re.MULTILINE)]
    selectors += re.findall(r":global\(([^)]*)\)", styles)
    return set(re.findall(r"\.([a-z][\w-]*)", " ".join(selectors)))


def test_the_lock_file_names_no_addresses() -> None:
    """Whoever builds takes the packages from the registry of their own settings."""
    text = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert "registry" not in text


def test_a_build_is_made_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is generated does not count, and everything else does."""
    made = builder()
    assert made.is_built()
    monkeypatch.setattr(made, "WEB", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.ts").write_text("1")
    first = made.content_digest()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "b.js").write_text("2")
    assert made.content_digest() == first
    (tmp_path / "src" / "a.ts").write_text("3")
    assert made.content_digest() != first


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v18.20.4", False),
        ("v20.18.9", False),
        ("v20.19.0", True),
        ("v21.7.0", False),
        ("v22.12.1", True),
        ("v24.0.0", True),
    ],
)
def test_an_old_node_is_not_used(tmp_path: Path, version: str, expected: bool) -> None:
    """Vite would fail with it; the package from PyPI stands in."""
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    assert builder().is_new_enough(str(node)) is expected


def test_files_of_the_page_are_short() -> None:
    """One noun each: at most 300 lines, as everywhere."""
    files = [path for path in (WEB / "src").rglob("*") if path.suffix in (".ts", ".svelte", ".css")]
    assert len(files) > 50
    long = {path.name for path in files if len(path.read_text().splitlines()) > 300}
    assert long <= {"schema.d.ts"}


def test_no_text_is_marked_up_or_hidden_in_the_code() -> None:
    """Text of devices is never markup: nothing in the page makes HTML of a string."""
    for path in (WEB / "src").rglob("*"):
        if path.suffix in (".ts", ".svelte"):
            assert not re.search(r"\{@html|innerHTML|outerHTML|insertAdjacentHTML|eval\(", path.read_text()), path
