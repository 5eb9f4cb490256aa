"""Dashboards: built with the pointer and the keyboard, made by one click, shared, and shown on a wall."""

import re

from playwright.sync_api import Browser, Dialog, Locator, Page, expect

from tests.browser.conftest import Person
from tests.browser.test_all_pages import an_agent, at_rest, logged_in
from tests.serving import Served


def panel(page: Page, name: str | re.Pattern[str]) -> Locator:
    return page.get_by_role("region", name=name)


def add_panel(page: Page, kind: str, search: str = "", title: str = "") -> None:
    """Add a panel of a kind that shows the first series found."""
    page.get_by_role("button", name="Add a panel").click()
    page.get_by_role("menuitem", name=re.compile(f"^{kind}")).click()
    dialog = page.get_by_role("dialog")
    if search:
        dialog.get_by_label(re.compile("^Add a series")).fill(search)
        page.get_by_role("option", name=re.compile(search)).first.click()
    else:
        dialog.get_by_label("Text", exact=True).fill(title)
    dialog.get_by_label("Title").fill(title)
    dialog.get_by_role("button", name="Add a panel").click()
    expect(dialog).to_have_count(0)


def test_a_board_is_built_and_opened_in_another_browser(
    operator: Person, chromium: Browser, demo: Served, demo_login: tuple[str, str]
) -> None:
    """Panels are added, moved with the pointer, sized with the keyboard, saved and shared; a viewer sees them live."""
    an_agent(demo, demo_login)
    page = operator.go("/dashboards")
    page.get_by_role("button", name="New dashboard").first.click()
    page.get_by_label("Name", exact=True).fill("Hall 3")
    add_panel(page, "Value", "power", "Now")
    add_panel(page, "Gauge", "temperature", "How warm")
    add_panel(page, "Text", title="Call 42 first.")
    before = panel(page, "How warm").bounding_box()
    grip = page.get_by_role("button", name=re.compile("^Move How warm"))
    grip.hover()
    page.mouse.down()
    page.mouse.move(before["x"] + 400, before["y"] - 120, steps=8)  # type: ignore[index]
    page.mouse.up()
    after = panel(page, "How warm").bounding_box()
    assert after["y"] < before["y"]  # type: ignore[index]
    assert after["x"] > before["x"] + 200  # type: ignore[index]
    grip.focus()
    page.keyboard.press("Shift+ArrowRight")
    assert panel(page, "How warm").bounding_box()["width"] > after["width"] + 50  # type: ignore[index]
    page.get_by_label("Share with everyone").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The dashboard is saved.")).to_be_visible()
    place = panel(page, "How warm").bounding_box()

    demo.command("users", "add", "board@localhost", "--tenant", "demo", "--password", "a-password-in-tests")
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    other = Person(context, operator.base)
    seen = other.log_in("board@localhost", "a-password-in-tests")
    other.go("/dashboards")
    seen.get_by_role("link", name=re.compile("Hall 3")).click()
    expect(panel(seen, "Call 42 first.")).to_contain_text("Call 42 first.")
    assert panel(seen, "How warm").bounding_box()["x"] == place["x"]  # type: ignore[index]
    value = panel(seen, "Now").locator("b")
    expect(value).to_have_text(re.compile(r"\d"))
    first = value.inner_text()
    expect(value).not_to_have_text(first)
    expect(seen.get_by_role("button", name="Edit", exact=True)).to_have_count(0)
    context.close()
    other.check()


def test_one_click_makes_a_board_that_shows_any_agent(
    operator: Person, demo: Served, demo_login: tuple[str, str]
) -> None:
    """Made from what an agent measures; another agent is chosen above; the wall screen shows nothing else."""
    page = operator.go(f"/agents/{an_agent(demo, demo_login)}")
    page.get_by_role("button", name="Make a dashboard").click()
    expect(page).to_have_url(re.compile("/dashboards/"))
    expect(panel(page, re.compile("power"))).not_to_have_count(0)
    chosen = page.get_by_role("combobox", name="Agent", exact=True)
    chosen.fill("simulated-004")
    page.get_by_role("option", name=re.compile("simulated-004")).click()
    expect(page).to_have_url(re.compile("agent="))
    expect(panel(page, "Agents")).to_contain_text("simulated-004")
    page.get_by_role("button", name="Wall screen").click()
    expect(page.get_by_role("button", name="Leave the wall screen")).to_be_visible()
    box = page.locator(".wall").bounding_box()
    assert box == {"x": 0, "y": 0, "width": page.evaluate("innerWidth"), "height": page.evaluate("innerHeight")}
    page.get_by_role("button", name="Leave the wall screen").click()
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_visible()


def test_what_arrives_is_drawn_without_reading_again(
    operator: Person, demo: Served, demo_login: tuple[str, str]
) -> None:
    """A board reads each line about once a minute, however many values arrive meanwhile."""
    page = operator.go(f"/agents/{an_agent(demo, demo_login)}")
    page.get_by_role("button", name="Make a dashboard").click()
    expect(panel(page, re.compile("power")).first).to_be_visible()
    at_rest(page)
    read: list[str] = []
    messages = 0
    page.on("request", lambda request: read.append(request.url) if "/timeseries" in request.url else None)
    value = page.get_by_role("region", name="power", exact=True).locator("b")
    for _ in range(5):
        expect(value).not_to_have_text(value.inner_text())
        messages += 1
    lines = page.locator("figure, .course, .strip").count()
    assert messages == 5
    assert len(read) <= 2 * lines, "\n".join(url.partition("timeseries")[2] for url in read)


def test_changes_are_not_lost_by_mistake(operator: Person, demo: Served, demo_login: tuple[str, str]) -> None:
    """Leaving asks; a panel that was removed comes back; somebody else's change is not overwritten."""
    page = operator.go(f"/agents/{an_agent(demo, demo_login)}")
    page.get_by_role("button", name="Make a dashboard").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(panel(page, "Agents")).to_be_visible()
    panel(page, "Agents").get_by_role("button", name="Remove Agents").click()
    expect(panel(page, "Agents")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(panel(page, "Agents")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("half done")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", stay)
    page.get_by_role("link", name="Explore", exact=True).click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("half done")
    assert len(asked) == 1

    there = operator.context.new_page()
    there.goto(page.url)
    there.get_by_role("button", name="Edit", exact=True).click()
    there.get_by_label("Name", exact=True).fill("first")
    there.get_by_role("button", name="Save", exact=True).click()
    expect(there.get_by_role("heading", name="first")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed this dashboard")
    page.get_by_role("button", name="Save as a copy").click()
    expect(page.get_by_role("heading", name="Copy of half done")).to_be_visible()
    operator.expected = ["409"]


def test_panels_out_of_sight_are_read_when_somebody_comes_near(
    operator: Person, demo: Served, demo_login: tuple[str, str]
) -> None:
    """A chart far below asks for nothing before the page is scrolled to it."""
    agent = an_agent(demo, demo_login)
    with logged_in(demo, demo_login) as api:
        metric = api.get(f"/readings/{agent}/latest").json()["readings"][0]["metric_name"]
    page = operator.go("/")
    place = {"x": 0, "width": 12, "title": ""}
    empty = [{**place, "kind": "text", "y": at * 20, "height": 20, "text": "."} for at in range(2)]
    series = [{"agent": agent, "metric": metric}]
    panels = [*empty, {**place, "kind": "chart", "y": 40, "height": 6, "series": series}]
    with logged_in(demo, demo_login) as api:
        made = api.post("/dashboard-layouts", json={"name": "long", "content": {"panels": panels}}).json()
    read: list[str] = []
    page.on("request", lambda request: read.append(request.url) if "/timeseries" in request.url else None)
    page = operator.go(f"/dashboards/{made['layoutId']}")
    expect(page.get_by_role("heading", name="long")).to_be_visible()
    at_rest(page)
    assert read == []
    page.mouse.move(700, 600)
    page.mouse.wheel(0, 10_000)
    expect(page.locator("figure")).to_be_visible()
    assert read


def test_panels_are_moved_past_each_other_on_a_phone(
    operator: Person, demo: Served, demo_login: tuple[str, str]
) -> None:
    """Where panels stand one below the other, buttons that a thumb can hit move them up and down."""
    place = {"kind": "text", "x": 0, "width": 4, "height": 2, "title": ""}
    panels = [{**place, "y": 2 * at, "text": name} for at, name in enumerate(("first", "second", "third"))]
    with logged_in(demo, demo_login) as api:
        made = api.post("/dashboard-layouts", json={"name": "phone", "content": {"panels": panels}}).json()
    operator.page.set_viewport_size({"width": 390, "height": 844})
    page = operator.go(f"/dashboards/{made['layoutId']}")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_role("button", name=re.compile("^Move Text: arrow"))).to_have_count(0)
    up = page.get_by_role("button", name="Move Text up").nth(2)
    box = up.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 44
    up.click()
    order = page.get_by_role("region", name="Text")
    tops = {text: order.filter(has_text=text).bounding_box()["y"] for text in ("first", "second", "third")}  # type: ignore[index]
    assert sorted(tops, key=tops.__getitem__) == ["first", "third", "second"]
