"""How the dashboard logs in: a cookie that scripts cannot read, links that work once, and no other site's pages."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving import Served, served

EMAIL, PASSWORD = "operator-browsers@example.com", "a-password-in-tests"
OWN_PAGE = {"User-Agent": "Firefox", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def user(server: Served) -> str:
    """A user of a tenant of its own."""
    server.add_tenant("browsers")
    server.login("browsers", "operator")
    return EMAIL


@pytest.fixture
def browser(server: Served, user: str) -> Iterator[httpx.Client]:
    """A client that keeps cookies, as the page's `fetch` does."""
    base = f"http://127.0.0.1:{server.http_port}/api/v1"
    with httpx.Client(base_url=base, headers=OWN_PAGE, timeout=30) as client:
        yield client


def log_in(browser: httpx.Client) -> httpx.Response:
    return browser.post("/auth/login", json={"email": EMAIL, "password": PASSWORD, "cookie": True})


def test_the_refresh_token_is_only_in_the_cookie(browser: httpx.Client) -> None:
    """HttpOnly, SameSite=Strict, for the routes of log-ins alone; the access token is in the body alone."""
    answer = log_in(browser)
    assert "refreshToken" not in answer.json()
    cookie = answer.headers["set-cookie"]
    for part in ("iotistica-", "HttpOnly", "SameSite=strict", "Path=/api/v1/auth", "Max-Age=2592000"):
        assert part in cookie
    assert answer.json()["accessToken"] not in cookie
    renewed = browser.post("/auth/refresh", json={})
    assert renewed.status_code == 200
    assert renewed.json()["user"]["email"] == EMAIL
    assert "refreshToken" not in renewed.json()


def test_the_cookie_alone_changes_and_shows_nothing(browser: httpx.Client) -> None:
    """Every other route wants the access token, which no other site's page can have."""
    log_in(browser)
    assert browser.get("/auth/me").status_code == 401
    assert browser.post("/auth/logout", json={}).status_code == 401
    assert browser.post("/agents", json={"name": "x"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "", "Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_foreign_page_can_neither_renew_nor_open_a_session(
    browser: httpx.Client, headers: dict[str, str]
) -> None:
    """Not even with the cookie, from another port of the same host; the session goes on."""
    log_in(browser)
    forged = browser.post("/auth/refresh", json={}, headers=headers)
    assert forged.status_code == 403
    assert "set-cookie" not in forged.headers
    body = {"email": EMAIL, "password": PASSWORD, "cookie": True}
    assert browser.post("/auth/login", json=body, headers=headers).status_code == 403
    assert browser.post("/auth/refresh", json={}).status_code == 200


def test_tabs_that_renew_at_once_stay_logged_in(browser: httpx.Client) -> None:
    """All send the same cookie, get tokens that work, and the same next cookie."""
    log_in(browser)
    cookies = dict(browser.cookies)
    base = str(browser.base_url)

    def renew(_: int) -> httpx.Response:
        return httpx.post(f"{base}auth/refresh", json={}, headers=OWN_PAGE, cookies=cookies, timeout=30)

    with ThreadPoolExecutor(6) as tabs:
        answers = [*tabs.map(renew, range(6))]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({tuple(answer.cookies.items()) for answer in answers}) == 1
    for answer in answers:
        headers = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
        assert browser.get("/auth/me", headers=headers).status_code == 200


def test_logging_out_deletes_the_cookie_and_the_session(browser: httpx.Client) -> None:
    """The old cookie is worth nothing afterwards."""
    token = log_in(browser).json()["accessToken"]
    cookies = dict(browser.cookies)
    answer = browser.post("/auth/logout", json={}, headers={"Authorization": f"Bearer {token}"})
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert dict(browser.cookies) == {}
    base = str(browser.base_url)
    again = httpx.post(f"{base}auth/refresh", json={}, headers=OWN_PAGE, cookies=cookies)
    assert again.status_code == 401


def test_a_link_logs_in_once(server: Served, browser: httpx.Client) -> None:
    """As the command prints it: the token is behind the #, so that no server and no log sees it."""
    done = server.command("users", "link", EMAIL, "--tenant", "browsers")
    assert done.returncode == 0, done.stderr
    site, _, token = done.stdout.strip().partition("/login#token=")
    assert site == f"http://127.0.0.1:{server.http_port}"
    first = browser.post("/auth/login/link", json={"token": token, "cookie": True})
    assert first.json()["user"]["email"] == EMAIL
    assert browser.post("/auth/refresh", json={}).status_code == 200
    again = browser.post("/auth/login/link", json={"token": token})
    assert (again.status_code, "used" in again.json()["detail"]) == (401, True)


def test_a_link_ends_when_the_password_is_changed(server: Served, browser: httpx.Client) -> None:
    """Whoever changes it shuts all doors; and a new link replaces an older one."""
    tokens = [server.command("users", "link", EMAIL, "--tenant", "browsers").stdout.split("token=")[1].strip()]
    tokens += [server.command("users", "link", EMAIL, "--tenant", "browsers").stdout.split("token=")[1].strip()]
    assert browser.post("/auth/login/link", json={"token": tokens[0]}).status_code == 401
    server.command("users", "password", EMAIL, "--tenant", "browsers", "--password", PASSWORD)
    assert browser.post("/auth/login/link", json={"token": tokens[1]}).status_code == 401


def test_the_first_start_prints_a_link_that_logs_in() -> None:
    """The owner is in the dashboard without typing a password; other origins are shut out, or let in by the setting."""
    with served(IOTISTICA_CORS_ORIGINS="https://plant.example/") as running:
        base = f"http://127.0.0.1:{running.http_port}"
        token = running.text().split(f"{base}/login#token=")[1].split()[0]
        answer = httpx.post(f"{base}/api/v1/auth/login/link", json={"token": token})
        assert answer.json()["user"]["role"] == "owner"
        for origin, expected in (
            ("https://plant.example", "https://plant.example"),
            ("https://evil.example", None),
        ):
            preflight = httpx.options(
                f"{base}/api/v1/agents",
                headers={
                    "Origin": origin,
                    "Access-Control-Request-Method": "GET",
                    "Access-Control-Request-Headers": "authorization",
                },
            )
            assert preflight.headers.get("access-control-allow-origin") == expected
            assert "access-control-allow-credentials" not in preflight.headers


def test_other_origins_are_shut_out_by_default(server: Served) -> None:
    """A page elsewhere cannot read any answer."""
    answer = httpx.get(f"http://127.0.0.1:{server.http_port}/health", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
