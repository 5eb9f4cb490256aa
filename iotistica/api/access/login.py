"""Routes for logging in and out, and for the sessions of a user."""

import secrets
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.access import session_cookie
from iotistica.api.access.passwords import WRONG_LOGIN, PasswordMessage, checked
from iotistica.api.access.session_views import Session, Sessions, SessionView, UserView, view
from iotistica.api.http.access_tokens import LIFETIME, AccessTokens, now
from iotistica.api.http.dependencies import (
    AccessTokensDep,
    ApiRequest,
    DatabaseDep,
    PlatformDatabaseDep,
    RateLimiterDep,
    ServerContext,
    ServerContextDep,
)
from iotistica.api.http.guard import (
    actor_of,
    address_of,
    anonymous_actor,
    source_of,
    tenant_of,
    wrong_credentials_limit,
)
from iotistica.api.http.inputs import Password
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import PERMISSIONS, PUBLIC, is_allowed
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound, Unauthorized
from iotistica.storage.access import one_time_links, sessions, users
from iotistica.storage.access.rate_limits import RateLimit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx

Secret = Annotated[str, Meta(min_length=1, max_length=credentials.LONGEST)]

USER_AGENT: Final = 200  # characters kept of the User-Agent header


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    password: Password
    email: Annotated[str, Meta(max_length=254)] = ""
    username: Annotated[str, Meta(max_length=254)] = ""
    cookie: bool = False
    """For the dashboard: the refresh token goes into a cookie that scripts cannot read, and not into the body."""


class LinkLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: Secret
    cookie: bool = False


class Refresh(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    refresh_token: Secret | None = None
    """Without it, the token of the cookie is used and replaced."""


class Logout(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    refresh_token: Annotated[str, Meta(max_length=credentials.LONGEST)] = ""
    all: bool = False
    """End all your sessions, not only this one."""


@post("/login", opt={"permission": PUBLIC}, status_code=200)
async def login(
    request: ApiRequest,
    data: JSONBody[Login],
    platform_database: PlatformDatabaseDep,
    access_tokens: AccessTokensDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> Response[Session]:
    """Exchange an e-mail address or user name and a password for an access token and a refresh token."""
    await rate_limiter.hit(RateLimit("login", context.settings.login_limit), source_of(request))
    login = data.email or data.username
    user_login = await checked(
        platform_database, context.key, login, data.password, source_of(request), anonymous_actor(request)
    )
    async with platform_database.transaction() as tx:
        session = await open_session(tx, request, context, access_tokens, user_login.tenant_id, user_login.user_id)
    return session_cookie.answer(request, context, session, cookie=data.cookie)


@post("/login/link", opt={"permission": PUBLIC}, status_code=200)
async def login_by_link(
    request: ApiRequest,
    data: JSONBody[LinkLogin],
    platform_database: PlatformDatabaseDep,
    access_tokens: AccessTokensDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> Response[Session]:
    """Log in with the token of a link that works once; the first start, the demo and `users link` print one."""
    await rate_limiter.hit(RateLimit("login", context.settings.login_limit), source_of(request))
    async with platform_database.transaction() as tx:
        link = await one_time_links.use(tx, "login", credentials.digest(context.key, data.token))
        if link is None or link.user_id is None:
            raise Unauthorized("This link is unknown, used or expired: log in with your password.")
        session = await open_session(tx, request, context, access_tokens, link.tenant_id, link.user_id)
    return session_cookie.answer(request, context, session, cookie=data.cookie)


async def open_session(
    tx: Tx,
    request: ApiRequest,
    context: ServerContext,
    access_tokens: AccessTokens,
    tenant: TenantId,
    user_id: UUID,
) -> Session:
    """Store a new session of a user, and return it with its two tokens."""
    user = await users.get(tx, tenant, user_id)
    if user is None:
        raise Unauthorized(WRONG_LOGIN)
    session = uuid4()
    secret = credentials.new_session(context.key, session, secrets.token_bytes(credentials.ENTROPY))
    await sessions.open_session(
        tx,
        tenant,
        user_id,
        session,
        secret.digest,
        expires=now() + timedelta(days=context.settings.session_days),
        by=Actor(kind="user", id=str(user_id), name=user.email, address=address_of(request)),
        user_agent=_user_agent(request),
    )
    return _session(access_tokens, user, session, secret.text)


@post("/refresh", opt={"permission": PUBLIC}, status_code=200)
async def refresh(
    request: ApiRequest,
    platform_database: PlatformDatabaseDep,
    access_tokens: AccessTokensDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
    data: JSONBody[Refresh | None] = None,
) -> Response[Session]:
    """Exchange a refresh token, of the body or of the cookie, for a new pair of tokens.

    A refresh token works once. Its second use within 30 seconds by the same client (user agent) returns the same
    new refresh token, since an answer can be lost and two tabs can refresh at once. Any other second use ends the
    session.
    """
    sent = data.refresh_token if data else None
    token = sent or session_cookie.token(request, context)
    if token is None:
        raise Unauthorized("Send a refresh token in the body or in the cookie: log in to get one.")
    session = credentials.session_of(context.key, token)
    if session is None:
        await rate_limiter.hit(wrong_credentials_limit(context.settings), source_of(request))
        raise Unauthorized("This is not a refresh token.")
    new_secret = credentials.next_session(context.key, session, token)
    used, by, user_agent = (
        credentials.digest(context.key, token),
        anonymous_actor(request),
        _user_agent(request),
    )
    async with platform_database.transaction() as tx:
        member = await sessions.rotate(
            tx, session, old=used, new=new_secret.digest, address=by.address, user_agent=user_agent
        ) or await sessions.repeated(tx, session, used=used, by=by, user_agent=user_agent)
        if member is not None:
            user = await users.get(tx, member.tenant_id, member.user_id)
            assert user is not None  # noqa: S101 the session refers to this user
            renewed = _session(access_tokens, user, session, new_secret.text)
            return session_cookie.answer(request, context, renewed, cookie=sent is None)
        await sessions.end_reused(tx, session, by=by)
    await rate_limiter.hit(wrong_credentials_limit(context.settings), source_of(request))
    raise Unauthorized("This refresh token was used before, or its session has ended: log in again.")


@post("/logout", opt={"permission": "self"}, status_code=200)
async def logout(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, data: JSONBody[Logout | None] = None
) -> Response[PasswordMessage]:
    """End this session, or with `all` every session of yours."""
    principal, tenant = request.auth, tenant_of(request)
    only = None if data and data.all else principal.session
    async with database.transaction(tenant) as tx:
        count = await sessions.end(tx, tenant, principal.id, by=actor_of(request), only=only)
    message = PasswordMessage(message=f"Logged out of {count} session{'s' * (count != 1)}.")
    return Response(message, cookies=[session_cookie.expired(request, context)])


@get("/sessions", opt={"permission": "self"})
async def list_sessions(request: ApiRequest, database: DatabaseDep) -> Sessions:
    """List the sessions in which you are logged in."""
    principal, tenant = request.auth, tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await sessions.of_user(tx, tenant, principal.id)
    views = [
        SessionView(
            id=s.session_id,
            created_at=s.created_at,
            used_at=s.used_at,
            expires_at=s.expires_at,
            address=s.address,
            user_agent=s.user_agent,
            is_this=s.session_id == principal.session,
        )
        for s in rows
    ]
    return Sessions(sessions=views)


@delete("/sessions/{session:uuid}", opt={"permission": "self"}, status_code=204)
async def end_session(request: ApiRequest, database: DatabaseDep, session: FromPath[UUID]) -> None:
    """End one of your sessions."""
    principal, tenant = request.auth, tenant_of(request)
    async with database.transaction(tenant) as tx:
        if not await sessions.end(tx, tenant, principal.id, by=actor_of(request), only=session):
            raise NotFound


@get("/me", opt={"permission": "self"})
async def me(request: ApiRequest, database: DatabaseDep) -> UserView:
    """Return the user who is logged in."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        user = await users.get(tx, tenant, request.auth.id)
    if user is None:
        raise Unauthorized
    return view(user)


def _user_agent(request: ApiRequest) -> str | None:
    return request.headers.get("user-agent", "")[:USER_AGENT].replace("\0", "") or None


def _session(access_tokens: AccessTokens, user: users.User, session: UUID, refresh_token: str) -> Session:
    access = access_tokens.issue(user=user.user_id, session=session, now=now())
    seconds = int(LIFETIME.total_seconds())
    permissions = [name for name in PERMISSIONS if is_allowed(name, user.role)]
    return Session(
        access_token=access,
        refresh_token=refresh_token,
        expires_in=seconds,
        user=view(user),
        permissions=permissions,
    )


router = Router(
    "/auth",
    route_handlers=[
        *(login, login_by_link, refresh, logout, me, list_sessions, end_session),
    ],
    tags=["auth"],
)
