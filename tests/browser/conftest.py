"""Chromium and a served instance for the tests of the dashboard."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.serving import Served, served

HERE = Path(__file__).parent
WEB = HERE.parents[1] / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


PATIENCE_MS = 30_000  # ms until an expectation has failed; as long as Playwright waits for a click

MISSING = "CHROMIUM IS MISSING, so the dashboard is not tested. On Debian: apt-get install chromium"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say loudly that these tests need Chromium; where they must run (as in CI), they fail without it."""
    if CHROMIUM is not None or os.environ.get("IOTISTICA_TEST_BROWSER") == "required":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture(scope="session")
def built_page() -> None:
    """The dashboard, built unless it is already."""
    done = subprocess.run([sys.executable, str(WEB / "build.py")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def demo(built_page: None) -> Iterator[Served]:
    """An instance with twenty simulated agents that obey their targets and run jobs."""
    with served("--demo") as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser; each test has a context of its own, like a person with a computer of their own.

    It ends with its file: while it runs, no other event loop can run in the thread, as asynchronous tests need.
    """
    assert CHROMIUM, MISSING
    expect.set_options(timeout=PATIENCE_MS)  # the default of 5 s is less than a page can take on a busy machine
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Person:
    """Somebody in front of a browser, who notices every error in the console and every request to elsewhere."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.faults: list[str] = []
        self.refused: list[str] = []
        """Requests that were answered with an error, for who reads why a test failed."""
        self.expected: list[str] = []
        """Parts of console messages that a test causes on purpose."""
        context.on("page", self._watch)
        self.page = context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("response", lambda response: self._note(response.status, response.url))
        page.on("request", lambda request: self._check(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(f"{kind}: {text}")

    def _note(self, status: int, url: str) -> None:
        if status >= 400:
            self.refused.append(f"{status} {url}")

    def _check(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self.faults.append(f"request to {url}")

    def go(self, path: str) -> Page:
        """Open a path of the dashboard."""
        self.page.goto(self.base + path)
        return self.page

    def log_in(self, email: str, password: str) -> Page:
        """Log in with the form."""
        page = self.go("/login")
        page.get_by_label("E-mail address or user name").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(self.base + "/")
        return page

    def check(self) -> None:
        """Fail if anything went wrong behind the scenes."""
        left = [fault for fault in self.faults if not any(part in fault for part in self.expected)]
        assert left == [], self.refused


@pytest.fixture
def person(chromium: Browser, demo: Served) -> Iterator[Person]:
    """Somebody who is not logged in yet, at a laptop."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, timezone_id="Europe/Berlin")
    found = Person(context, f"http://127.0.0.1:{demo.http_port}")
    yield found
    context.close()
    found.check()


@pytest.fixture(scope="module")
def demo_login(demo: Served) -> tuple[str, str]:
    """The e-mail address and password that the demo prints."""
    found = re.search(r"Login\s+(demo@localhost)\s+password: (\S+)", demo.text())
    assert found
    return found[1], found[2]


@pytest.fixture
def operator(person: Person, demo_login: tuple[str, str]) -> Person:
    """Somebody who is logged in as the demo's owner."""
    person.log_in(*demo_login)
    return person
