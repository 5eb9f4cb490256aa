"""How the built dashboard is read, noticed when it changes, and stood for while it is not there."""

import fcntl
import json
from pathlib import Path
from typing import Any

import brotli
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from iotistica.api.http import errors
from iotistica.api.page import built_page, page
from iotistica.api.page.built_page import BuiltPage

BROWSER = {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip, br"}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like `web`, without a built page; every request looks for a new one."""
    monkeypatch.setattr(built_page, "CHECK_SECONDS", 0.0)
    (tmp_path / ".build").mkdir()
    return tmp_path


@pytest.fixture
def client(web: Path) -> TestClient[Any]:
    shown = BuiltPage(web / "dist", web / ".build" / "status.json")
    app = Litestar(page.routes(shown), exception_handlers={Exception: errors.problem_response}, openapi_config=None)
    return TestClient(app, raise_server_exceptions=False)


def build(web: Path, name: str) -> None:
    """What a build leaves: a page, a script, and their compressed copies."""
    new = web / f"new-{name}"
    (new / "assets").mkdir(parents=True)
    (new / "index.html").write_text(f"<script src=/assets/{name}.js></script>")
    (new / "assets" / f"{name}.js").write_text(f"// {name}")
    (new / "assets" / f"{name}.js.br").write_bytes(brotli.compress(f"// {name}".encode()))
    if (web / "dist").exists():
        (web / "dist").rename(web / f"old-{name}")
    new.rename(web / "dist")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "is not built"),
        ({"state": "building", "detail": "Node.js is being installed."}, "Node.js is being installed."),
        ({"state": "failed", "detail": "<b>Install Node.js</b>"}, "&lt;b&gt;Install Node.js&lt;/b&gt;"),
    ],
)
def test_without_a_page_the_root_says_why(
    web: Path, client: TestClient[Any], status: dict[str, str] | None, expected: str
) -> None:
    """And looks again by itself; nothing in it runs."""
    if status:
        (web / ".build" / "status.json").write_text(json.dumps(status))
    with (web / ".build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = client.get("/", headers=BROWSER)
    assert expected in answer.text
    assert '<meta http-equiv="refresh"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_build_that_was_killed_is_not_said_to_go_on(web: Path, client: TestClient[Any]) -> None:
    """Nobody holds its lock any more."""
    (web / ".build" / "status.json").write_text(json.dumps({"state": "building", "detail": "wait"}))
    (web / ".build" / "lock").touch()
    assert "was ended before it was done" in client.get("/", headers=BROWSER).text


def test_the_root_turns_into_the_page_and_into_the_next_one(web: Path, client: TestClient[Any]) -> None:
    """A build that ends while the process runs is shown, without a restart."""
    assert "not built" in client.get("/", headers=BROWSER).text
    build(web, "one")
    assert "one.js" in client.get("/", headers=BROWSER).text
    build(web, "two")
    assert "two.js" in client.get("/agents/some/target", headers=BROWSER).text
    assert client.get("/assets/one.js").status_code == 404


def test_files_are_kept_forever_and_the_page_is_asked_for(web: Path, client: TestClient[Any]) -> None:
    """The names of files have a hash; the page has an ETag, and each coding its own."""
    build(web, "one")
    script = client.get("/assets/one.js", headers={"Accept-Encoding": "br"})
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (script.headers["content-encoding"], script.headers["content-type"]) == (
        "br",
        "text/javascript; charset=utf-8",
    )
    plain = client.get("/assets/one.js", headers={"Accept-Encoding": "identity"})
    assert (plain.text, plain.headers["etag"] == script.headers["etag"]) == ("// one", False)
    shown = client.get("/", headers=BROWSER)
    assert shown.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={**BROWSER, "If-None-Match": shown.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_programs_get_the_description_of_the_service(client: TestClient[Any]) -> None:
    """Only who asks for HTML gets the page."""
    assert client.get("/", headers={"Accept": "*/*"}).json()["apiBase"] == "/api/v1"


@pytest.mark.parametrize("path", ["/assets/../index.html", "/assets/%2e%2e%2findex.html", "/assets/status.json"])
def test_only_built_files_are_served(web: Path, client: TestClient[Any], path: str) -> None:
    """There is no way out of the folder."""
    build(web, "one")
    assert client.get(path).status_code == 404


def test_the_policy_lets_nothing_run_but_the_own_files(web: Path, client: TestClient[Any]) -> None:
    """No inline scripts, no other hosts, no frames."""
    build(web, "one")
    policy = client.get("/", headers=BROWSER).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
