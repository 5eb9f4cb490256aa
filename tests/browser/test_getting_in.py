"""Getting in and staying in."""

from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Person
from tests.serving import Served


def test_the_printed_link_logs_in_once(demo: Served, person: Person, chromium: Browser) -> None:
    """A click on what the terminal shows is enough; its token does not stay in the address."""
    done = demo.command("users", "link", "demo@localhost", "--tenant", "demo")
    link = done.stdout.strip()
    person.page.goto(link)
    expect(
        person.page.get_by_text("Everything is all right").or_(person.page.get_by_text("needs you"))
    ).to_be_visible()
    assert "token" not in person.page.url
    other = Person(chromium.new_context(), person.base)
    other.page.goto(link)
    expect(other.page.get_by_role("alert")).to_contain_text("used or expired")
    other.context.close()


def test_a_link_does_not_replace_a_session_unasked(demo: Served, operator: Person) -> None:
    """Somebody else's link would put one into somebody else's account, and one's work with it."""
    done = demo.command("users", "link", "demo@localhost", "--tenant", "demo")
    page = operator.page
    page.goto(operator.base + "/health")  # a link on the same page would only change what is behind its #
    page.goto(done.stdout.strip())
    expect(page.get_by_text("You are logged in as demo@localhost.")).to_be_visible()
    page.get_by_role("link", name="Stay as I am").click()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()


def test_a_password_logs_in_and_a_wrong_one_says_so(person: Person, demo_login: tuple[str, str]) -> None:
    """Without a word on which part was wrong."""
    person.expected = ["401"]
    page = person.go("/login")
    page.get_by_label("E-mail address or user name").fill(demo_login[0])
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("is wrong")).to_be_visible()
    page.get_by_label("Password").fill(demo_login[1])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()


@pytest.mark.parametrize(
    "next_",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "javascript:alert(1)",
        "http:evil.example",
        "%09//evil.example",
    ],
)
def test_a_hostile_way_on_leads_nowhere_else(person: Person, demo_login: tuple[str, str], next_: str) -> None:
    """After the log-in one is in the dashboard, wherever a link said one should go."""
    page = person.go(f"/login?next={quote(next_, safe='')}")
    page.get_by_label("E-mail address or user name").fill(demo_login[0])
    page.get_by_label("Password").fill(demo_login[1])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    assert page.url == person.base + "/"


def test_one_comes_back_to_where_one_wanted_to_go(person: Person, demo_login: tuple[str, str]) -> None:
    """A link from a message asks for the log-in first."""
    page = person.go("/operations/ledger?x=1")
    page.get_by_label("E-mail address or user name").fill(demo_login[0])
    page.get_by_label("Password").fill(demo_login[1])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("The ledger is in balance").first).to_be_visible()


def test_two_tabs_that_renew_at_once_stay_logged_in(operator: Person) -> None:
    """Both tabs, reloaded at the same moment again and again."""
    tabs = [operator.page, operator.context.new_page()]
    tabs[1].goto(operator.base + "/agents")
    for _ in range(3):
        for tab in tabs:
            tab.evaluate("setTimeout(() => location.reload(), 50)")
        for tab in tabs:
            tab.wait_for_timeout(600)
            expect(tab.get_by_role("navigation", name="Main")).to_be_visible()


def test_logging_out_in_one_tab_logs_out_all(operator: Person) -> None:
    """Whoever leaves the computer has left every tab."""
    operator.expected = ["401"]  # what was being read at that moment
    other = operator.context.new_page()
    other.goto(operator.base + "/agents")
    expect(other.get_by_role("navigation", name="Main")).to_be_visible()
    operator.page.get_by_role("button", name="Account").click()
    operator.page.get_by_role("menuitem", name="Log out").click()
    for tab in (operator.page, other):
        expect(tab.get_by_role("button", name="Log in")).to_be_visible()
