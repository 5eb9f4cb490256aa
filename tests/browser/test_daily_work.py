"""What an operator does all day, in the browser, against simulated agents that obey."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Person
from tests.mqtt311 import Client311
from tests.serving import Served, until


@pytest.fixture(scope="module")
def api(demo: Served, demo_login: tuple[str, str]) -> Iterator[httpx.Client]:
    """A client of the demo's owner, to arrange what a test needs."""
    base = f"http://127.0.0.1:{demo.http_port}/api/v1"
    email, password = demo_login
    token = httpx.post(f"{base}/auth/login", json={"email": email, "password": password}).json()["accessToken"]
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def agent(api: httpx.Client) -> str:
    """The UUID of one simulated agent that is online."""
    until(lambda: api.get("/agents", params={"status": "online"}).json()["total"] == 20, 60, "all are online")
    found: str = api.get("/agents", params={"search": "simulated-0", "sort": "name", "limit": 1}).json()["agents"][
        0
    ]["uuid"]
    return found


def incidents(api: httpx.Client, status: str) -> int:
    """How many incidents have a status."""
    return int(api.get("/anomaly/incidents", params={"status": status}).json()["total"])


def open_agent(operator: Person, agent: str, tab: str = "") -> Page:
    page = operator.go(f"/agents/{agent}{tab}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("simulated-")
    return page


def test_one_look_says_that_all_is_well(operator: Person, agent: str) -> None:
    """A sentence, numbers that lead to what is behind them, and a tile for each agent."""
    page = operator.go("/")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    online = page.get_by_role("link", name=re.compile("^Online"))
    expect(online).to_contain_text("20")
    online.click()
    expect(page.get_by_text("20 agents")).to_be_visible()
    expect(page).to_have_url(re.compile("status=online"))


def test_an_agent_is_found_from_anywhere_with_the_keyboard(operator: Person, agent: str) -> None:
    """Ctrl K, a part of the name, Enter."""
    page = operator.go("/operations")
    expect(page.get_by_role("heading", name="Operations")).to_be_visible()
    page.keyboard.press("Control+k")
    page.get_by_placeholder("Agents, pages and actions").fill("simulated-007")
    expect(
        page.get_by_role("option", name=re.compile("simulated-007")).or_(page.get_by_text("simulated-007"))
    ).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="simulated-007")).to_be_visible()


def test_values_change_while_one_looks(operator: Person, agent: str) -> None:
    """A reading that is stored is on the screen without a reload."""
    page = open_agent(operator, agent)
    row = page.get_by_role("row").filter(has_text=re.compile(r"\.power"))
    first = row.locator("b").inner_text()
    expect(row.locator("b")).not_to_have_text(first)


def test_a_target_is_set_and_seen_applied(operator: Person, agent: str) -> None:
    """With a preview of what changes; then the verdict in words, when the agent has done it."""
    page = open_agent(operator, agent, "/target")
    editor = page.get_by_role("textbox", name="Edit the target")
    expect(editor).to_have_value(re.compile("apps"))
    editor.fill('{"apps": {}, "config": {"logging": {"level": "debug"')
    expect(page.get_by_text("This is no JSON")).to_be_visible()
    editor.fill('{"apps": {}, "config": {"logging": {"level": "debug"}}}')
    expect(page.get_by_text("config.logging", exact=True)).to_be_visible()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("The new target is deployed.")).to_be_visible()
    expect(page.get_by_text("applied", exact=True)).to_be_visible(timeout=90_000)


def test_a_rule_is_made_fires_and_its_incident_is_worked_off(
    operator: Person, demo: Served, api: httpx.Client, agent: str
) -> None:
    """Tried on the past first; then fired by a reading, acknowledged by key, and over when the value is."""
    made = api.post("/agents", json={"name": "boiler house"}).json()
    page = operator.go("/rules?rule=new")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Boiler too hot")
    dialog.get_by_label("Above", exact=True).fill("90")
    dialog.get_by_label("For at least (seconds)").fill("0")
    dialog.get_by_label("Series or metric").fill("boiler_temperature")
    dialog.get_by_role("button", name="Try it").click()
    expect(dialog.get_by_text("It would not have fired.")).to_be_visible()
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The rule is saved.")).to_be_visible()
    with Client311(demo.mqtt_port, made["mqtt"]["username"], made["mqtt"]["password"]) as device:
        topic = f"{made['agent']['topic']}/endpoints/modbus"

        def send(value: float) -> None:
            device.publish(topic, json.dumps({"metric": "boiler_temperature", "value": value}).encode())

        def fired() -> bool:
            send(95.0)
            return incidents(api, "open") > 0

        until(fired, 60, "the rule fires")
        operator.go("/incidents")
        expect(page.get_by_role("link", name=re.compile("Boiler too hot"))).to_be_visible()
        page.keyboard.press("a")
        expect(page.get_by_text("Nobody else is woken for it.")).to_be_visible()
        page.get_by_role("link", name=re.compile("Boiler too hot")).click()
        expect(page.get_by_role("link", name="boiler house")).to_be_visible()

        def over() -> bool:
            send(60.0)
            return incidents(api, "resolved") > 0

        until(over, 60, "the incident ends")
        expect(page.get_by_text("resolved", exact=True).first).to_be_visible()


def test_a_job_with_a_canary_runs_to_its_end(operator: Person, api: httpx.Client, agent: str) -> None:
    """Who is meant is counted before; progress, the canary and an output are seen as they happen."""
    for one in api.get("/agents", params={"limit": 3}).json()["agents"]:
        api.post(f"/agents/{one['uuid']}/tags", json={"key": "line", "value": "7"})
    page = operator.go("/jobs?new=job")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Say hello")
    dialog.get_by_label("Tags").fill("line=7")
    expect(dialog.get_by_text("3 agents will get it")).to_be_visible()
    dialog.get_by_label("Canaries").fill("1")
    dialog.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("heading", name="Say hello")).to_be_visible()
    expect(page.get_by_text("3 succeeded")).to_be_visible(timeout=90_000)
    expect(page.get_by_text("canary", exact=True)).to_be_visible()
    page.get_by_role("group").first.locator("summary").click()
    expect(page.get_by_text(re.compile("Exit code|hello")).first).to_be_visible()


def test_a_dead_letter_is_looked_into_and_replayed(
    operator: Person, demo: Served, api: httpx.Client, agent: str
) -> None:
    """The bytes are shown as text, never as markup; a replay of what is still broken brings it back."""
    made = api.post("/agents", json={"name": "broken gateway"}).json()
    with Client311(demo.mqtt_port, made["mqtt"]["username"], made["mqtt"]["password"]) as device:
        device.publish(f"{made['agent']['topic']}/endpoints/modbus", b'{"readings": <script>alert(1)</script>')
    until(lambda: api.get("/ingestion/dead-letters").json()["count"] == 1, 30)
    page = operator.go("/operations/dead-letters")
    page.get_by_role("button", name="Look inside").click()
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("1 message is processed again.")).to_be_visible()
    until(lambda: api.get("/ingestion/dead-letters").json()["deadLetters"][0]["attempts"] > 1, 30)
    operator.go("/operations/dead-letters")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_text("Every message could be processed")).to_be_visible()


def test_a_device_is_enrolled_and_appears(operator: Person, demo: Served, agent: str) -> None:
    """A key, the exact command with the address of this platform, and the moment when the device is there."""
    page = operator.go("/enrolment")
    page.get_by_role("button", name="Make the key").click()
    command = page.locator("pre").first
    expect(command).to_contain_text(f"IOTISTICA_API={operator.base}")
    found = re.search(r"PROVISIONING_KEY=(\S+)", command.inner_text())
    assert found
    expect(page.get_by_text("Nothing has registered")).to_be_visible()
    answer = httpx.post(
        f"{operator.base}/api/v1/provision/agent", json={"key": found[1], "agentName": "new gateway"}, timeout=30
    )
    assert answer.status_code in (200, 201), answer.text
    expect(page.get_by_role("link", name="new gateway")).to_be_visible()


def test_a_colleague_is_invited_and_gets_in(operator: Person, chromium: object, agent: str) -> None:
    """A link to pass on; the colleague chooses a password and sees the fleet, but not the users."""
    page = operator.go("/settings/users")
    page.get_by_label("E-mail address").fill("colleague@example.com")
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_role("dialog").locator("pre").inner_text()
    other = operator.context.browser
    assert other is not None
    guest = Person(other.new_context(), operator.base)
    guest.page.goto(link)
    guest.page.get_by_label("New password").fill("correct horse battery")
    guest.page.get_by_role("button", name="Start").click()
    expect(guest.page.get_by_role("navigation", name="Main")).to_be_visible()
    guest.go("/settings")
    expect(guest.page.get_by_text("Viewer: sees everything")).to_be_visible()
    expect(guest.page.get_by_role("link", name="Users")).to_have_count(0)
    guest.check()
    guest.context.close()
