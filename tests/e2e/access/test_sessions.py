"""Log-ins: tokens that change, end and are found stolen; passwords, links, lock-out and limits."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx
import pytest

from tests.serving import ADMIN, Served, served, until

PASSWORD = "a-password-in-tests"


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("sessions")
    return server.login("sessions", "owner")


def api(server: Served, path: str, body: Mapping[str, object], token: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"http://127.0.0.1:{server.http_port}/api/v1{path}", json=body, headers=headers, timeout=30)


def me(server: Served, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"http://127.0.0.1:{server.http_port}/api/v1/auth/me", headers=headers).status_code


@pytest.fixture
def user(server: Served, owner: httpx.Client) -> dict[str, str]:
    """A user of its own for each test."""
    name = f"user{uuid4().hex[:8]}"
    new = {"email": f"{name}@example.com", "password": PASSWORD, "username": name, "role": "viewer"}
    made: dict[str, str] = owner.post("/users", json=new).json()
    return made | {"username": name}


def login(server: Served, user: dict[str, str], password: str = PASSWORD) -> dict[str, str]:
    answer = api(server, "/auth/login", {"email": user["email"], "password": password})
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


def test_a_user_logs_in_by_address_or_name(server: Served, user: dict[str, str]) -> None:
    """In either field, whatever the case of the letters."""
    for body in ({"email": user["email"].upper()}, {"username": user["username"]}, {"username": user["email"]}):
        answer = api(server, "/auth/login", {**body, "password": PASSWORD}).json()
        assert (answer["expiresIn"], answer["user"]["email"]) == (900, user["email"])


def refreshed(server: Served, token: str, client: str = "Firefox") -> httpx.Response:
    """Use a refresh token as the browser with this user agent."""
    url = f"http://127.0.0.1:{server.http_port}/api/v1/auth/refresh"
    return httpx.post(url, json={"refreshToken": token}, headers={"User-Agent": client}, timeout=30)


def test_a_refresh_token_of_another_client_ends_the_session(server: Served, user: dict[str, str]) -> None:
    """Each use gives another pair; one that comes again from elsewhere ends the session, for one of two stole it."""
    first = login(server, user)
    second = refreshed(server, first["refreshToken"]).json()
    assert second["refreshToken"] != first["refreshToken"]
    assert me(server, second["accessToken"]) == 200
    assert refreshed(server, first["refreshToken"], "curl").status_code == 401
    assert refreshed(server, second["refreshToken"]).status_code == 401
    until(lambda: me(server, second["accessToken"]) == 401, 3, "access tokens of the session end too")


def test_two_tabs_that_refresh_at_once_stay_logged_in(
    server: Served, owner: httpx.Client, user: dict[str, str]
) -> None:
    """All get tokens that work, as does a client that lost the answer; the audit shows it."""
    first = login(server, user)
    with ThreadPoolExecutor(4) as tabs:
        answers = [*tabs.map(lambda _: refreshed(server, first["refreshToken"]), range(4))]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [me(server, answer.json()["accessToken"]) for answer in answers] == [200] * 4
    (token,) = {answer.json()["refreshToken"] for answer in answers}
    assert refreshed(server, token).status_code == 200
    events = owner.get("/audit/events", params={"action": "session.refresh_repeated"}).json()["events"]
    assert [event["after"] for event in events if event["after"]["user"] == user["id"]] == [
        {"user": user["id"]}
    ] * 3


def test_a_token_two_generations_old_ends_the_session(server: Served, user: dict[str, str]) -> None:
    """Even for the same client at once: whoever holds it does not know the current one."""
    first = login(server, user)
    second = refreshed(server, first["refreshToken"]).json()
    third = refreshed(server, second["refreshToken"]).json()
    assert refreshed(server, first["refreshToken"]).status_code == 401
    assert refreshed(server, third["refreshToken"]).status_code == 401


def test_a_reuse_is_in_the_audit(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """With the session it ended."""
    first = login(server, user)
    for client in ("one", "two"):
        refreshed(server, first["refreshToken"], client)
    events = owner.get("/audit/events", params={"action": "session.reuse_detected"}).json()["events"]
    assert events[0]["after"] == {"user": user["id"]}


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        ("pa\u0308ssword-\u00e9", "p\u00e4ssword-e\u0301"),
        ("\uff50\uff41ssword-\u00fc1", "password-u\u03081"),
        ("sp\u00a0ace-\u00e4\u00e4x1", "sp ace-\u00e4a\u0308x1"),
        ("\ufb01nal-\u00f1and\u00fa-9", "final-n\u0303andu\u0301-9"),
    ],
)
def test_a_password_and_an_address_are_the_same_from_every_keyboard(
    server: Served, owner: httpx.Client, stored: str, typed: str
) -> None:
    """They are compared in NFKC, however the system that sends them composes letters."""
    name = uuid4().hex[:8]
    new = {"email": f"m\u00fcller{name}@example.com", "password": stored, "role": "viewer"}
    assert owner.post("/users", json=new).status_code == 201
    answer = api(server, "/auth/login", {"email": f"mu\u0308ller{name}@example.com", "password": typed})
    assert answer.status_code == 200, answer.text
    twice = {**new, "email": f"mu\u0308ller{name}@example.com"}
    assert owner.post("/users", json=twice).status_code == 409


def test_names_are_composed(server: Served, owner: httpx.Client) -> None:
    """A fleet's name is stored in NFC; the same name typed otherwise is taken."""
    name = uuid4().hex[:8]
    made = owner.post("/fleets", json={"name": f"Ku\u0308hlhaus {name}"}).json()
    assert made["name"] == f"K\u00fchlhaus {name}"
    assert owner.post("/fleets", json={"name": f"K\u00fchlhaus {name}"}).status_code == 409


def test_a_sessions_id_ends_nothing(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """It stands in tokens and in the audit: a refresh token made up from it is none."""
    session = login(server, user)
    sid = owner.get("/audit/events", params={"action": "session.opened"}).json()["events"][0]["subjectId"]
    forged = "iotrt_" + base64.urlsafe_b64encode(UUID(sid).bytes + bytes(48)).rstrip(b"=").decode()
    assert api(server, "/auth/refresh", {"refreshToken": forged}).status_code == 401
    assert api(server, "/auth/refresh", {"refreshToken": session["refreshToken"]}).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "iotrt_AAAA", "iotrt_" + "A" * 64, "A" * 70, "iotrt_\u00fc" + "A" * 63])
def test_what_is_no_refresh_token_is_refused(server: Served, token: str) -> None:
    """Whatever it looks like."""
    assert api(server, "/auth/refresh", {"refreshToken": token}).status_code in (400, 401)


def test_a_session_ends_alone_or_with_all_others(server: Served, user: dict[str, str]) -> None:
    """Log-out here, of one elsewhere, and everywhere."""
    one, two, three = (login(server, user) for _ in range(3))
    base = f"http://127.0.0.1:{server.http_port}/api/v1/auth"
    headers = {"Authorization": f"Bearer {two['accessToken']}"}
    listed = httpx.get(f"{base}/sessions", headers=headers).json()["sessions"]
    assert [session["isThis"] for session in listed].count(True) == 1
    assert len(listed) == 3
    assert api(server, "/auth/logout", {}, one["accessToken"]).status_code == 200
    until(lambda: me(server, one["accessToken"]) == 401, 3)
    assert (me(server, two["accessToken"]), me(server, three["accessToken"])) == (200, 200)
    other = next(
        s["id"] for s in httpx.get(f"{base}/sessions", headers=headers).json()["sessions"] if not s["isThis"]
    )
    assert httpx.delete(f"{base}/sessions/{other}", headers=headers).status_code == 204
    until(lambda: me(server, three["accessToken"]) == 401, 3)
    four = login(server, user)
    assert (
        api(server, "/auth/logout", {"all": True}, two["accessToken"]).json()["message"]
        == "Logged out of 2 sessions."
    )
    until(lambda: me(server, four["accessToken"]) == 401, 3)
    assert api(server, "/auth/refresh", {"refreshToken": four["refreshToken"]}).status_code == 401


@pytest.mark.parametrize("change", [{"active": False}, {"role": "operator"}, {"password": "another-long-one"}])
def test_a_changed_user_is_logged_out(
    server: Served, owner: httpx.Client, user: dict[str, str], change: dict[str, object]
) -> None:
    """At once, and what they may is never what an old token says."""
    session = login(server, user)
    assert owner.patch(f"/users/{user['id']}", json=change).status_code == 200
    until(lambda: me(server, session["accessToken"]) == 401, 3)
    assert api(server, "/auth/refresh", {"refreshToken": session["refreshToken"]}).status_code == 401


def test_a_deleted_user_is_gone(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """With every session; what it did stays in the audit."""
    session = login(server, user)
    assert owner.delete(f"/users/{user['id']}").status_code == 204
    until(lambda: me(server, session["accessToken"]) == 401, 3)
    assert owner.get(f"/users/{user['id']}").status_code == 404
    events = owner.get("/audit/events", params={"subject": user["id"]}).json()["events"]
    assert [event["action"] for event in events] == ["user.deleted", "user.added"]


def test_a_user_changes_its_password(server: Served, user: dict[str, str]) -> None:
    """With the old one; the other sessions end, this one goes on."""
    here, there = login(server, user), login(server, user)
    new = {"currentPassword": "wrong-password", "newPassword": "another-long-one"}
    refused = api(server, "/auth/change-password", new, here["accessToken"])
    assert refused.json()["errors"][0]["path"] == "currentPassword"
    new["currentPassword"] = PASSWORD
    assert api(server, "/auth/change-password", new, here["accessToken"]).status_code == 200
    until(lambda: me(server, there["accessToken"]) == 401, 3)
    assert me(server, here["accessToken"]) == 200
    assert login(server, user, "another-long-one")


@pytest.mark.parametrize("password", ["short", "password123", "12345678901", "aaaaaaaaaaaa", "x" * 2000])
def test_a_bad_password_is_not_taken(server: Served, user: dict[str, str], password: str) -> None:
    """Too short, too common, too simple, too long: said by its field."""
    session = login(server, user)
    body = {"currentPassword": PASSWORD, "newPassword": password}
    answer = api(server, "/auth/change-password", body, session["accessToken"])
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "newPassword")


def test_a_link_sets_a_password_once(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """Made by an administrator; a second link ends the first, and a link works once."""
    session = login(server, user)
    first, link = (owner.post(f"/users/{user['id']}/password-reset").json() for _ in range(2))
    assert link["url"].endswith(f"/password#token={link['token']}")
    body: dict[str, object] = {"token": first["token"], "password": "another-long-one"}
    assert api(server, "/auth/password/reset", body).status_code == 401
    body["token"] = link["token"]
    assert api(server, "/auth/password/reset", body | {"password": "short"}).status_code == 400
    assert api(server, "/auth/password/reset", body).status_code == 202
    assert api(server, "/auth/password/reset", body).status_code == 401
    until(lambda: me(server, session["accessToken"]) == 401, 3)
    assert login(server, user, "another-long-one")


@pytest.mark.parametrize(
    "change", [{"role": "owner"}, {"email": "changed"}, {"active": False}, {"password": "another-long-one"}]
)
def test_a_link_is_for_the_user_as_it_was(
    server: Served, owner: httpx.Client, user: dict[str, str], change: dict[str, object]
) -> None:
    """An administrator's link does not become an owner's, nor outlive what it was made for."""
    admin = server.login("sessions", "admin")
    link = admin.post(f"/users/{user['id']}/password-reset").json()
    if "email" in change:
        change = {"email": f"{uuid4().hex}@example.com"}
    assert owner.patch(f"/users/{user['id']}", json=change).status_code == 200
    owner.patch(f"/users/{user['id']}", json={"active": True})
    body: dict[str, object] = {"token": link["token"], "password": "one-of-the-thief"}
    assert api(server, "/auth/password/reset", body).status_code == 401


def test_what_somebody_made_ends_with_them(server: Served, owner: httpx.Client) -> None:
    """Invitations of an administrator who is gone let nobody in; its API keys are the tenant's, and name it."""
    email = f"{uuid4().hex}@example.com"
    made = owner.post("/users", json={"email": email, "password": PASSWORD, "role": "admin"}).json()
    token = login(server, {"email": email})["accessToken"]
    link = api(server, "/auth/invitations", {"email": f"{uuid4().hex}@example.com", "role": "admin"}, token).json()
    assert api(server, "/auth/api-keys", {"name": f"of {email}"}, token).status_code == 201
    assert owner.delete(f"/users/{made['id']}").status_code == 204
    body: dict[str, object] = {"token": link["token"], "password": PASSWORD}
    assert api(server, "/auth/invitations/accept", body).status_code == 401
    assert email in [key["createdBy"] for key in owner.get("/auth/api-keys").json()["keys"]]


def test_an_admin_touches_no_owners_invitation(server: Served, owner: httpx.Client) -> None:
    """Neither by inviting the same address anew nor by taking it back."""
    admin, email = server.login("sessions", "admin"), f"{uuid4().hex}@example.com"
    link = owner.post("/auth/invitations", json={"email": email, "role": "owner"}).json()
    assert admin.post("/auth/invitations", json={"email": email}).status_code == 403
    assert admin.delete(f"/auth/invitations/{link['id']}").status_code == 403
    body: dict[str, object] = {"token": link["token"], "password": PASSWORD}
    assert api(server, "/auth/invitations/accept", body).json()["user"]["role"] == "owner"


def test_of_links_made_at_once_one_works(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """And a password that was set, by a link or by command, ends those that are left."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: owner.post(f"/users/{user['id']}/password-reset").json(), range(4)))
    bodies = [{"token": link["token"], "password": "another-long-one"} for link in made]
    assert sorted(api(server, "/auth/password/reset", body).status_code for body in bodies) == [202, 401, 401, 401]
    token = owner.post(f"/users/{user['id']}/password-reset").json()["token"]
    done = server.command(
        "users", "password", user["email"], "--tenant", "sessions", "--password", "one-more-of-them"
    )
    assert done.returncode == 0, done.stderr
    assert api(server, "/auth/password/reset", {"token": token, "password": "yet-another-one"}).status_code == 401


def test_who_was_an_administrator_makes_nobody_another(server: Served, owner: httpx.Client) -> None:
    """What administers believes nothing from memory: from the answer of the removal on it is refused."""
    email = f"{uuid4().hex}@example.com"
    made = owner.post("/users", json={"email": email, "password": PASSWORD, "role": "admin"}).json()
    token = login(server, {"email": email})["accessToken"]
    assert me(server, token) == 200
    assert owner.delete(f"/users/{made['id']}").status_code == 204
    invitation: dict[str, object] = {"email": f"{uuid4().hex}@example.com", "role": "admin"}
    assert api(server, "/auth/invitations", invitation, token).status_code == 401


def test_a_name_that_looks_like_a_counter_locks_nobody(server: Served, user: dict[str, str]) -> None:
    """Whatever is tried as a name is counted as a name."""
    for number in range(6):
        body: dict[str, object] = {"username": f"{user['id']} 127.0.0.1", "password": f"wrong {number}"}
        api(server, "/auth/login", body)
    assert login(server, user)


def test_a_stolen_token_changes_no_password(server: Served, owner: httpx.Client) -> None:
    """An administrator's own goes by the old one alone."""
    admin = server.login("sessions", "admin")
    me_ = admin.get("/auth/me").json()["id"]
    assert admin.patch(f"/users/{me_}", json={"password": "another-long-one"}).status_code == 403
    assert admin.post(f"/users/{me_}/password-reset").status_code == 403
    weak = owner.patch(f"/users/{me_}", json={"password": "admin-sessions@example.com"})
    assert weak.status_code == 400


def test_a_name_is_nobodys_address(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """Who is called like somebody else's address cannot be: one has an @, the other has none."""
    assert owner.patch(f"/users/{user['id']}", json={"username": "a@example.com"}).status_code == 400
    assert owner.post("/users", json={"email": "boss", "password": PASSWORD}).status_code == 400
    done = server.command("users", "add", "boss", "--tenant", "sessions")
    assert (done.returncode, "--username" in done.stderr) == (1, True)


def test_log_ins_at_once_are_all_let_in(server: Served, user: dict[str, str]) -> None:
    """Right passwords are counted against nobody."""
    body: dict[str, object] = {"email": user["email"], "password": PASSWORD}
    with ThreadPoolExecutor(12) as pool:
        assert {a.status_code for a in pool.map(lambda _: api(server, "/auth/login", body), range(12))} == {200}


def test_asking_for_a_link_tells_nobody_who_exists(
    server: Served, owner: httpx.Client, user: dict[str, str]
) -> None:
    """The answer is the same; the administrators see it in the audit."""
    known, unknown = (api(server, "/auth/password/reset", {"email": e}) for e in (user["email"], "no@example.com"))
    assert (known.status_code, known.content) == (202, unknown.content)
    events = owner.get("/audit/events", params={"subject": user["id"]}).json()["events"]
    assert events[0]["action"] == "user.reset_asked"


def test_somebody_is_invited(server: Served, owner: httpx.Client) -> None:
    """By a link that works once, for the address and role it was made for."""
    email = f"{uuid4().hex}@example.com"
    link = owner.post("/auth/invitations", json={"email": email, "role": "operator"}).json()
    assert [i["email"] for i in owner.get("/auth/invitations").json()["invitations"]] == [email]
    assert link["token"] not in owner.get("/auth/invitations").text
    body: dict[str, object] = {"token": link["token"], "password": PASSWORD, "fullName": "Anna", "role": "owner"}
    session = api(server, "/auth/invitations/accept", body)
    assert session.status_code == 201, session.text
    assert (session.json()["user"]["email"], session.json()["user"]["role"]) == (email, "operator")
    assert me(server, session.json()["accessToken"]) == 200
    assert api(server, "/auth/invitations/accept", body).status_code == 401
    assert owner.post("/auth/invitations", json={"email": email}).status_code == 409


def test_an_invitation_is_taken_back(server: Served, owner: httpx.Client) -> None:
    """Then its link does nothing, and a token of another kind never did."""
    link = owner.post("/auth/invitations", json={"email": f"{uuid4().hex}@example.com"}).json()
    assert api(server, "/auth/password/reset", {"token": link["token"], "password": PASSWORD}).status_code == 401
    assert owner.delete(f"/auth/invitations/{link['id']}").status_code == 204
    assert owner.delete(f"/auth/invitations/{link['id']}").status_code == 404
    body: dict[str, object] = {"token": link["token"], "password": PASSWORD}
    assert api(server, "/auth/invitations/accept", body).status_code == 401


def test_a_name_is_locked_after_wrong_passwords(server: Served, owner: httpx.Client, user: dict[str, str]) -> None:
    """Longer each time, whether it exists or not; the right password does not help meanwhile, but does later."""
    for email in (f"{uuid4().hex}@example.com", user["email"]):
        waits: list[int] = []
        while len(waits) < 3:  # 1, 2 and 4 s
            answer = api(server, "/auth/login", {"email": email, "password": "wrong"})
            assert answer.status_code in (401, 429)
            if answer.status_code == 429:
                waits.append(int(answer.headers["retry-after"]))
                time.sleep(waits[-1] if len(waits) < 3 else 0)
        assert waits == sorted(waits)
        assert waits[-1] > waits[0]
    answer = api(server, "/auth/login", {"email": user["email"], "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    events = owner.get("/audit/events", params={"subject": user["id"], "action": "login.failed"}).json()["events"]
    assert [event["after"]["failures"] for event in events[-5:]] == [5, 4, 3, 2, 1]
    login_again = {"email": user["email"], "password": PASSWORD}
    until(lambda: api(server, "/auth/login", login_again).status_code == 200, 10, "the lock ends")


def test_registration_is_closed_unless_it_is_opened(server: Served) -> None:
    """By invitation only, by default."""
    body: dict[str, object] = {"email": "someone@example.com", "password": PASSWORD}
    assert api(server, "/auth/register", body).status_code == 403


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    """An instance with the limits as they ship, RS256, and registration open."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from tests.serving import new_data_folder

    with new_data_folder() as folder:
        path = folder / "tokens.pem"
        key = rsa.generate_private_key(65537, 2048)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        environment = {"IOTISTICA_LOGIN_LIMIT": "10", "IOTISTICA_TOKEN_KEY_FILE": str(path)}
        with served(**environment, IOTISTICA_REGISTRATION_TENANT="default") as running:
            yield running


def test_tokens_can_be_checked_by_others(strict: Served) -> None:
    """With RS256 the public key is at the well-known address, and the token names it."""
    session = api(strict, "/auth/login", {"email": ADMIN[0], "password": ADMIN[1]}).json()
    keys = httpx.get(f"http://127.0.0.1:{strict.http_port}/.well-known/jwks.json").json()["keys"]
    head = json.loads(base64.urlsafe_b64decode(session["accessToken"].split(".")[0] + "=="))
    assert (head["alg"], head["kid"]) == ("RS256", keys[0]["kid"])
    assert me(strict, session["accessToken"]) == 200


def test_a_viewer_registers_where_it_is_open(strict: Served) -> None:
    """Whatever role it asks for."""
    body: dict[str, object] = {"email": "viewer@example.com", "password": PASSWORD, "role": "owner"}
    answer = api(strict, "/auth/register", body)
    assert (answer.status_code, answer.json()["user"]["role"]) == (201, "viewer")


def early_in_a_minute() -> None:
    """Limits count by the minute: what must fall into one begins before its second half."""
    until(lambda: time.time() % 60 < 30, 40)


def test_the_limits_as_they_ship(strict: Served) -> None:
    """Ten log-ins a minute from one address, with the time to wait; who is logged in goes on."""
    early_in_a_minute()
    token = api(strict, "/auth/login", {"email": ADMIN[0], "password": ADMIN[1]}).json()["accessToken"]
    answers = [api(strict, "/auth/login", {"email": f"x{n}@example.com", "password": "x"}) for n in range(12)]
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert me(strict, token) == 200
    forged = {"X-Forwarded-For": "10.0.0.1"}
    url = f"http://127.0.0.1:{strict.http_port}/api/v1/auth/login"
    assert httpx.post(url, json={"email": "x@example.com", "password": "x"}, headers=forged).status_code == 429


def test_who_shares_an_address_with_a_guesser_is_not_held_up(strict: Served) -> None:
    """Wrong credentials are answered 429 after 300 of them, right ones as ever; none at all counts for nothing."""
    early_in_a_minute()
    token = _token(strict)
    base = f"http://127.0.0.1:{strict.http_port}/api/v1"
    with httpx.Client(base_url=base) as client:
        assert {client.get("/agents").status_code for _ in range(10)} == {401}
        wrong = [client.get("/agents", headers={"Authorization": f"Bearer x{n}"}).status_code for n in range(305)]
    assert wrong == [401] * 300 + [429] * 5
    assert me(strict, token) == 200


def test_administration_is_limited_on_its_own(strict: Served) -> None:
    """A hundred requests a minute that administer; others go on."""
    early_in_a_minute()
    headers = {"Authorization": f"Bearer {_token(strict)}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{strict.http_port}/api/v1", headers=headers) as client:
        rare = [client.get("/audit/events?limit=1").status_code for _ in range(102)]
        assert client.get("/agents").status_code == 200
    assert rare == [200] * 100 + [429] * 2


def _token(strict: Served) -> str:
    """An access token, once the log-ins of the test before are forgotten."""
    body: dict[str, object] = {"email": ADMIN[0], "password": ADMIN[1]}
    answer = until(lambda: (a := api(strict, "/auth/login", body)).status_code == 200 and a, 70)
    early_in_a_minute()
    return str(answer.json()["accessToken"])
