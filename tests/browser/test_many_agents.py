"""Ten thousand agents: the map, the search, the list; and the bench of the page, tiny."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Person
from tests.many_agents import add_many
from tests.serving import ADMIN, Served, served

ROOT = Path(__file__).parents[2]
AGENTS = 10_000


@pytest.fixture(scope="module")
def fleet(built_page: None) -> Iterator[Served]:
    """An instance with ten thousand agents, a hundred of which are offline."""
    with served() as running:
        add_many(running, running.login().get("/auth/me").json()["tenantId"], AGENTS)
        yield running


def test_an_agent_is_found_among_ten_thousand(chromium: Browser, fleet: Served) -> None:
    """By the keyboard, by typing above the list, by its state, and by scrolling to the end."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    person = Person(context, f"http://127.0.0.1:{fleet.http_port}")
    page = person.log_in(*ADMIN)
    expect(page.get_by_role("link", name=re.compile("^Online"))).to_contain_text("9,900")
    offline = page.get_by_role("link", name=re.compile("^Offline"))
    expect(offline).to_contain_text("100")
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Agents, pages and actions").fill("gateway-007777")
    expect(page.get_by_role("dialog").get_by_role("option").first).to_contain_text("gateway-007777")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="gateway-007777")).to_be_visible()
    person.go("/agents")
    page.get_by_role("searchbox").first.fill("009123")
    expect(page.get_by_text("gateway-009123")).to_be_visible()
    expect(page.get_by_text("1 agent", exact=True)).to_be_visible()
    person.go("/agents")
    expect(page.get_by_text("10,000 agents")).to_be_visible()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.get_by_text("gateway-010000")).to_be_visible()
    person.go("/")
    offline.click()
    expect(page.get_by_text("100 agents")).to_be_visible()
    expect(page.get_by_text("gateway-000077")).to_be_visible()
    context.close()
    person.check()


def test_the_bench_of_the_page_runs(built_page: None, tmp_path: Path) -> None:
    """With tiny sizes; nothing is asserted about speed, but the weight of the first load is."""
    command = [sys.executable, "-m", "bench.page", "--tiny", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "page.json").read_text())
    assert report.keys() == {"machine", "commit", "load", "pan", "memory", "list"}
    assert 40 < report["load"]["kB"] < 120
    assert report["pan"]["points"] == 1000
    assert report["list"]["agents"] == 301
    assert report["memory"]["still live"]
