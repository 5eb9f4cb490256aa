"""Logging in, users, keys and links."""

from typing import Any

import httpx

from tests.e2e.examples.recorder import Recorder

PASSWORD = "correct horse battery"


def walk(call: Recorder, owner: httpx.Client, token: str) -> None:
    """Take a user from the invitation to the removal, and create and revoke an API key."""
    anybody = call.client()
    for route in ("GET /", "GET /health", "GET /ready", "GET /metrics"):
        call(anybody, route)
    call(anybody, "POST /auth/login/link", {"token": token})
    call(owner, "GET /auth/me")
    link = call(owner, "POST /auth/invitations", {"email": "ada@example.com", "role": "operator"}, status=201)
    call(owner, "GET /auth/invitations")
    accepted = {"token": link["token"], "password": PASSWORD, "username": "ada", "fullName": "Ada Lovelace"}
    call(anybody, "POST /auth/invitations/accept", accepted, status=201)
    other = call(owner, "POST /auth/invitations", {"email": "bob@example.com"}, status=201)
    call(owner, "DELETE /auth/invitations/{link}", path={"link": other["id"]}, status=204)
    ada = _log_in(call, anybody, "ada@example.com")
    call(ada, "GET /auth/sessions")
    new = {"currentPassword": PASSWORD, "newPassword": f"{PASSWORD} staple"}
    call(ada, "POST /auth/change-password", new)
    call(anybody, "POST /auth/password/reset", {"email": "ada@example.com"}, status=202)
    call(anybody, "POST /auth/register", {"email": "eve@example.com", "password": PASSWORD}, status=201)
    eve = _log_in(call, anybody, "eve@example.com")
    (session, *_) = call(eve, "GET /auth/sessions")["sessions"]
    call(eve, "DELETE /auth/sessions/{session}", path={"session": session["id"]}, status=204)
    call(ada, "POST /auth/logout", {})
    _users(call, owner)
    key = call(owner, "POST /auth/api-keys", {"name": "grafana", "role": "viewer"}, status=201)
    call(owner, "GET /auth/api-keys")
    call(owner, "DELETE /auth/api-keys/{key}", path={"key": key["id"]}, status=204)
    call(owner, "GET /audit/events", query={"action": "user", "limit": 2})


def _log_in(call: Recorder, anybody: httpx.Client, email: str) -> httpx.Client:
    pair: dict[str, Any] = call(anybody, "POST /auth/login", {"email": email, "password": PASSWORD})
    pair = call(anybody, "POST /auth/refresh", {"refreshToken": pair["refreshToken"]})
    return call.client(pair["accessToken"])


def _users(call: Recorder, owner: httpx.Client) -> None:
    user = {"email": "grace@example.com", "password": PASSWORD, "role": "viewer", "fullName": "Grace Hopper"}
    added = call(owner, "POST /users", user, status=201)
    path = {"user": added["id"]}
    call(owner, "GET /users", query={"limit": 2})
    call(owner, "GET /users/{user}", path=path)
    call(owner, "PATCH /users/{user}", {"role": "operator"}, path=path)
    call(owner, "PUT /users/{user}", {"email": "grace@example.com", "username": "grace"}, path=path)
    call(owner, "POST /users/{user}/password-reset", path=path, status=201)
    call(owner, "DELETE /users/{user}", path=path, status=204)
