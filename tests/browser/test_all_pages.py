"""Every page, wide and narrow, light and dark: accessible, without errors, and safe from what devices send."""

import json
import re
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.browser.conftest import WEB, Person
from tests.mqtt311 import Client311
from tests.serving import Served, until

AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PATHS = (
    *("/", "/agents", "/explore", "/dashboards", "/incidents", "/rules", "/rules/channels"),
    *(
        "/rules/silences",
        "/jobs",
        "/enrolment",
        "/operations",
        "/operations/ledger",
        "/operations/dead-letters",
        "/operations/storage",
    ),
    *("/operations/erasures", "/operations/broker", "/operations/audit", "/settings", "/settings/users"),
    *("/settings/keys", "/rules?rule=new", "/jobs?new=job", "/agents/a/b/no-such-page"),
)
OF_AGENT = ("", "/charts", "/target", "/jobs", "/logs", "/timeline", "/identity")
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
HOSTILE = "<img src=x onerror=alert(1)>'\"]]>{{7*7}}${7*7}\u202egnp.exe\u200b"
"""Markup, templates, and characters that turn the direction of text or hide in it."""


def at_rest(page: Page) -> None:
    """Wait until nothing is loading any more."""
    expect(page.locator("[aria-busy=true], [role=status].placeholder")).to_have_count(0)
    page.wait_for_timeout(150)


def serious_findings(page: Page) -> list[str]:
    """What axe-core finds on a page that keeps somebody from using it."""
    if not page.evaluate("'axe' in window"):
        # Playwright's own evaluation is not subject to the policy of the page; a script element would be.
        page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [
        f"{one['id']}: {node['target']} {node['failureSummary'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        ("narrow", "dark"),
        pytest.param("wide", "light", marks=pytest.mark.slow),  # as in all other files of this folder
        pytest.param("wide", "dark", marks=pytest.mark.slow),
        pytest.param("narrow", "light", marks=pytest.mark.slow),
    ],
)
def test_every_page_can_be_used_by_everybody(
    chromium: Browser, demo: Served, demo_login: tuple[str, str], size: str, theme: Literal["light", "dark"]
) -> None:
    """No serious finding of axe-core, no error in the console, nothing wider than the screen."""
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    person = Person(context, f"http://127.0.0.1:{demo.http_port}")
    page = person.go("/login")
    expect(page.get_by_label("Password")).to_be_visible()
    findings = {"/login": serious_findings(page)}
    person.log_in(*demo_login)
    agent = an_agent(demo, demo_login)
    wide: list[str] = []
    board = a_dashboard(demo, demo_login, agent)
    boards = (board, f"{board}?edit=1", f"{board}?wall=1")
    for path in [*PATHS, *boards, *(f"/agents/{agent}{tab}" for tab in OF_AGENT)]:
        person.go(path)
        expect(page.locator("main")).not_to_be_empty()
        at_rest(page)
        findings[path] = serious_findings(page)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    context.close()
    assert {path: found for path, found in findings.items() if found} == {}
    assert wide == []
    person.expected = ["401"]
    person.check()


def an_agent(demo: Served, login: tuple[str, str]) -> str:
    with logged_in(demo, login) as api:
        found: str = api.get("/agents", params={"sort": "name", "limit": 1}).json()["agents"][0]["uuid"]
        return found


def a_dashboard(demo: Served, login: tuple[str, str], agent: str, text: str = "Call 42 first.") -> str:
    """The path of a dashboard with a panel of each kind."""
    with logged_in(demo, login) as api:
        names = [row["metric_name"] for row in api.get(f"/readings/{agent}/latest").json()["readings"]]
        series = [{"agent": agent, "metric": name} for name in names[:20]]
        kinds: list[dict[str, Any]] = [
            {"kind": "chart", "series": series[:10]},
            {"kind": "table", "series": series},
            {"kind": "states", "series": series[:3]},
            {"kind": "value", "series": series[:1], "title": text},
            {"kind": "gauge", "series": series[:1], "critical": 1},
            {"kind": "agents", "agents": [agent, None]},
            {"kind": "text", "text": text},
        ]
        place = {"x": 0, "width": 6, "height": 4}
        panels = [{**place, "y": at * 4, **kind} for at, kind in enumerate(kinds)]
        body = {"name": text, "content": {"agent": agent, "panels": panels}}
        return f"/dashboards/{api.post('/dashboard-layouts', json=body).json()['layoutId']}"


def logged_in(demo: Served, login: tuple[str, str]) -> httpx.Client:
    base = f"http://127.0.0.1:{demo.http_port}/api/v1"
    answer = httpx.post(f"{base}/auth/login", json={"email": login[0], "password": login[1]})
    headers = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
    return httpx.Client(base_url=base, headers=headers, timeout=30)


def test_nothing_that_a_device_sends_becomes_markup(
    operator: Person, demo: Served, demo_login: tuple[str, str]
) -> None:
    """Names, units, metrics, texts, log lines, events, states, tags and errors: shown as they are, and nothing runs."""
    with logged_in(demo, demo_login) as api:
        made = api.post("/agents", json={"name": "<script>alert(1)</script>"}).json()
        agent, topic = made["agent"]["uuid"], made["agent"]["topic"]
        api.post(f"/agents/{agent}/tags", json={"key": "note", "value": "<b onclick=alert(1)>x</b>"})
        api.put(f"/agents/{agent}/target-state", json={"config": {"logging": {"level": HOSTILE}}, "note": HOSTILE})
        key = api.post(f"/device/{agent}/rotate-key", json=None).json()["apiKey"]
        base = str(api.base_url)
        reported = {
            **{"version": 1, "os_version": HOSTILE, "agent_version": HOSTILE[:60], "config": {"x": HOSTILE}},
            "apps": {"1": {"appName": HOSTILE, "services": []}},
        }
        answer = httpx.patch(f"{base}device/state", headers={"X-Device-API-Key": key}, json={agent: reported})
        assert answer.status_code == 200, answer.text
        with Client311(demo.mqtt_port, made["mqtt"]["username"], made["mqtt"]["password"]) as device:

            def send(path: str, message: object) -> None:
                device.publish(f"{topic}/{path}", json.dumps(message).encode())

            send("endpoints/x", [{"deviceName": HOSTILE, "metric": HOSTILE, "value": HOSTILE, "unit": "<i>m</i>"}])
            send("endpoints/x", {"nonsense": [HOSTILE]})
            send("logs/web", {"message": HOSTILE, "level": "error", "serviceName": HOSTILE})
            send("events/anomaly", {"severity": "critical", "metric": HOSTILE, "message": HOSTILE, "value": 1})
            until(lambda: api.get(f"/readings/{agent}/latest").json()["count"] == 1, 30, "the reading is stored")
            until(lambda: api.get(f"/agents/{agent}/logs").json()["count"] == 1, 30, "the line is stored")
        board = a_dashboard(demo, demo_login, agent, HOSTILE.replace("\u202e", "").replace("\u200b", ""))
        dialogs: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            dialogs.append(dialog.message)
            dialog.dismiss()

        operator.page.on("dialog", dismiss)
        paths = ["/", "/agents", "/incidents", "/operations/dead-letters", "/operations/audit", "/explore", board]
        for path in [*paths, *(f"/agents/{agent}{tab}" for tab in OF_AGENT)]:
            page = operator.go(path)
            at_rest(page)
            assert page.locator("img[src=x], main script, b[onclick]").count() == 0, path
            for box in page.locator("summary, button:has-text('Look inside')").all()[:3]:
                box.click()
            assert "\u202e" not in page.locator("body").inner_text(), path
        operator.go(f"/agents/{agent}")
        expect(operator.page.get_by_role("heading", name="<script>alert(1)</script>")).to_be_visible()
        operator.go(f"/agents/{agent}/logs")
        expect(operator.page.get_by_role("log")).to_contain_text("<img src=x onerror=alert(1)>")
    assert dialogs == []


def test_a_viewer_is_offered_what_a_viewer_may(
    chromium: Browser, demo: Served, demo_login: tuple[str, str]
) -> None:
    """No page and no tab that is offered is answered 403; what would change something cannot be pressed."""
    demo.command("users", "add", "viewer@localhost", "--tenant", "demo", "--password", "a-password-in-tests")
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    person = Person(context, f"http://127.0.0.1:{demo.http_port}")
    page = person.log_in("viewer@localhost", "a-password-in-tests")
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Jobs")).to_have_count(0)
    agent = an_agent(demo, demo_login)
    starts = ["/", "/agents", "/explore", "/incidents", "/rules", "/operations", "/settings", f"/agents/{agent}"]
    seen: set[str] = set()
    while starts:
        path = starts.pop()
        seen.add(path)
        person.go(path)
        at_rest(page)
        for link in page.locator("main nav a").all():
            target = link.get_attribute("href") or ""
            if target.startswith("/") and target not in seen and target not in starts:
                starts.append(target)
    assert f"/agents/{agent}/target" in seen
    person.go(f"/agents/{agent}/target")
    editor = page.get_by_role("textbox", name="Edit the target")
    expect(editor).to_have_value(re.compile("apps"))
    editor.fill('{"apps": {}, "config": {"logging": {"level": "error"}}}')
    expect(page.get_by_role("button", name="Deploy", exact=True)).to_be_disabled()
    context.close()
    person.check()
