"""Takes a picture of every page of the dashboard, wide and narrow, light and dark: `./run screenshots [NAME …]`.

The pictures are WebP files in docs/screenshots, named after the page, the width and the theme. Names select pages.
"""

import re
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, MISSING
from tests.screenshots.plant import furnish
from tests.serving import Served, served

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SCALE = {"wide": 0.75, "narrow": 1}
PERSON: dict[str, Any] = {"timezone_id": "Europe/Berlin", "locale": "en-GB"}
QUALITY = 60  # of WebP, of 100


def pages(ids: dict[str, str], dashboard: str) -> Iterator[tuple[str, str]]:
    """The name and the path of each page."""
    boiler, agent = ids["boiler"], ids["agent"]
    series = "|".join(f"{boiler}/boiler.{name}" for name in ("flow_temperature", "return_temperature", "gas"))
    yield from (("fleet", "/?by=fleet"), ("agents", "/agents"), ("agent", f"/agents/{agent}"))
    for tab in ("charts", "target", "jobs", "logs", "timeline", "identity"):
        yield f"agent-{tab}", f"/agents/{agent}/{tab}"
    yield "explore", f"/explore?{httpx.QueryParams({'series': series, 'range': '7d'})}"
    compared = {"series": f"{boiler}/boiler.flow_temperature", "range": "24h", "compare": "week"}
    yield "explore-compared", f"/explore?{httpx.QueryParams(compared)}"
    yield from (("dashboards", "/dashboards"), ("dashboard", dashboard), ("dashboard-edit", f"{dashboard}?edit=1"))
    yield "dashboard-wall", f"{dashboard}?wall=1"
    yield from (("incidents", "/incidents"), ("incident", f"/incidents/{ids['incident']}"), ("rules", "/rules"))
    yield from (("rule", "/rules?rule=new"), ("rule-channels", "/rules/channels"), ("silences", "/rules/silences"))
    yield from (("jobs", "/jobs"), ("job", f"/jobs/{ids['job']}"), ("job-new", "/jobs?new=job"))
    yield from (("enrolment", "/enrolment"), ("operations", "/operations"), ("settings", "/settings"))
    for tab in ("ledger", "dead-letters", "storage", "erasures", "broker", "audit"):
        yield f"operations-{tab}", f"/operations/{tab}"
    yield from (("settings-users", "/settings/users"), ("settings-keys", "/settings/keys"))


def take(page: Page, path: Path, size: str) -> None:
    """Take a picture when nothing is loading any more."""
    expect(page.locator("[aria-busy=true], .placeholder")).to_have_count(0, timeout=20_000)
    expect(page.get_by_text("Live", exact=True).first).to_be_visible(timeout=20_000)
    page.wait_for_timeout(600)
    width, height = SIZES[size]
    clip = {"x": 0, "y": page.evaluate("scrollY"), "width": width, "height": height, "scale": SCALE[size]}
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY, "clip": clip})
    session.detach()
    path.write_bytes(b64decode(shot["data"]))


def take_all(browsers: dict[str, Browser], server: Served, wanted: set[str], folder: Path) -> int:
    """Take the pictures of all pages, or of those that are named, with a browser for each size; return how many."""
    login = re.search(r"Login\s+(demo@localhost)\s+password: (\S+)", server.text())
    assert login, server.text()
    base = f"http://127.0.0.1:{server.http_port}"
    answer = httpx.post(f"{base}/api/v1/auth/login", json={"email": login[1], "password": login[2]})
    headers = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
    with httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=60) as owner:
        ids = furnish(server, owner)
    context = browsers["wide"].new_context(**PERSON)
    page = context.new_page()
    page.goto(f"{base}/login")
    page.get_by_label("E-mail address or user name").fill(login[1])
    page.get_by_label("Password").fill(login[2])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{base}/")
    page.goto(f"{base}/agents/{ids['boiler']}")
    page.get_by_role("button", name="Make a dashboard").click()
    page.wait_for_url("**/dashboards/*")
    dashboard = page.url.removeprefix(base)
    count = 0
    for size, (width, height) in SIZES.items():
        if size == "narrow":  # a phone, whose bars take no room; logged in as the same session
            state = context.storage_state()
            context.close()
            context = browsers[size].new_context(**PERSON, storage_state=state, is_mobile=True, has_touch=True)
            page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            for name, path in pages(ids, f"{dashboard}"):
                if wanted and name not in wanted:
                    continue
                page.goto(base + path)
                take(page, folder / f"{name}-{size}-{theme}.webp", size)
                count += 1
    context.close()
    return count


def main() -> None:
    """Take the pictures."""
    if CHROMIUM is None:
        sys.exit(MISSING)
    FOLDER.mkdir(exist_ok=True)
    with served("--demo") as server, sync_playwright() as playwright:
        bars = {"wide": ["--hide-scrollbars"], "narrow": []}  # a laptop shows its scrollbar, a phone does not
        browsers = {
            size: playwright.chromium.launch(
                executable_path=CHROMIUM, args=list(ARGUMENTS), ignore_default_args=ignored
            )
            for size, ignored in bars.items()
        }
        count = take_all(browsers, server, set(sys.argv[1:]), FOLDER)
        for browser in browsers.values():
            browser.close()
    size = sum(path.stat().st_size for path in FOLDER.glob("*.webp"))
    print(f"{count} pictures taken; docs/screenshots has {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
