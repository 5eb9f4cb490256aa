"""Routes by which a person becomes a user: by an invitation link that works once, or by open registration."""

from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from iotistica.api.access import session_cookie
from iotistica.api.access.login import open_session
from iotistica.api.access.passwords import check_password
from iotistica.api.access.session_views import Session
from iotistica.api.http.access_tokens import now
from iotistica.api.http.dependencies import (
    AccessTokensDep,
    ApiRequest,
    DatabaseDep,
    PlatformDatabaseDep,
    RateLimiterDep,
    ServerContext,
    ServerContextDep,
)
from iotistica.api.http.guard import actor_of, address_of, anonymous_actor, source_of, tenant_of
from iotistica.api.http.inputs import Email, Name, Password, Username
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import PUBLIC, Role, is_at_least
from iotistica.errors import Conflict, Forbidden, NotFound, Unauthorized
from iotistica.storage.access import one_time_links, tenants, users
from iotistica.storage.access.rate_limits import RateLimit
from iotistica.storage.history.audit import Actor

INVITATION_LIFETIME: Final = timedelta(days=7)


class NewInvitation(msgspec.Struct, frozen=True, kw_only=True):
    email: Email
    role: Role = "viewer"


class LinkView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    id: UUID
    email: str
    role: str | None
    created_at: datetime
    expires_at: datetime
    token: str | None = None
    """Returned only by the call that created it."""
    url: str | None = None


class Invitations(msgspec.Struct, frozen=True, kw_only=True):
    invitations: list[LinkView]


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    token: Annotated[str, Meta(min_length=1, max_length=credentials.LONGEST)]
    password: Password
    username: Username | None = None
    full_name: Name | None = None
    cookie: bool = False
    """For the dashboard: the refresh token goes into a cookie that scripts cannot read, and not into the body."""


class UserRegistration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    email: Email
    password: Password
    username: Username | None = None
    full_name: Name | None = None


@post("/invitations", opt={"permission": "users.manage"}, status_code=201)
async def invite(
    request: ApiRequest, data: JSONBody[NewInvitation], database: DatabaseDep, context: ServerContextDep
) -> LinkView:
    """Create a link by which a person becomes a user of the tenant.

    The link cannot be retrieved later: pass it on to the person. An open invitation to the same address is
    withdrawn.
    """
    if not is_at_least(request.auth.role, data.role):
        raise Forbidden("You cannot assign a role above your own.")
    tenant, secret = tenant_of(request), context.secret(credentials.LINK)
    async with database.transaction(tenant) as tx:
        await one_time_links.lock(tx, tenant, data.email)
        if await users.by_email(tx, tenant, data.email):
            raise Conflict(f"{data.email} is already a user.")
        if (previous := await one_time_links.invitation(tx, tenant, email=data.email)) is not None:
            _check_role(request, previous)
            await one_time_links.withdraw(tx, tenant, previous, by=actor_of(request))
        link = await one_time_links.add(
            *(tx, tenant, "invitation", data.email, secret.digest),
            role=data.role,
            expires=now() + INVITATION_LIFETIME,
            by=actor_of(request),
        )
    return view(link, secret.text, context)


@get("/invitations", opt={"permission": "users.manage"})
async def list_invitations(request: ApiRequest, database: DatabaseDep) -> Invitations:
    """List the invitations that are still open."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        links = await one_time_links.invitations(tx, tenant)
    return Invitations(invitations=[view(link) for link in links])


@delete("/invitations/{link:uuid}", opt={"permission": "users.manage"}, status_code=204)
async def withdraw(request: ApiRequest, database: DatabaseDep, link: FromPath[UUID]) -> None:
    """Withdraw an invitation."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        invitation = await one_time_links.invitation(tx, tenant, link=link)
        if invitation is None:
            raise NotFound
        _check_role(request, invitation)
        await one_time_links.withdraw(tx, tenant, invitation, by=actor_of(request))


@post("/invitations/accept", opt={"permission": PUBLIC}, status_code=201)
async def accept(
    request: ApiRequest,
    data: JSONBody[Acceptance],
    platform_database: PlatformDatabaseDep,
    access_tokens: AccessTokensDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> Response[Session]:
    """Become a user with the token of an invitation, and log in."""
    await rate_limiter.hit(RateLimit("join", context.settings.login_limit), source_of(request))
    check_password(data.password, data.username or "", path="password")
    digest = await users.hashed(data.password)
    async with platform_database.transaction() as tx:
        link = await one_time_links.use(tx, "invitation", credentials.digest(context.key, data.token))
        if link is None or link.role is None:
            raise Unauthorized("This invitation is unknown, used, withdrawn or expired: ask for a new one.")
        check_password(data.password, link.email, path="password")
        user = await users.add(
            *(tx, link.tenant_id, link.email, digest, link.role),
            by=Actor(kind="link", id=str(link.link_id), name=link.email, address=address_of(request)),
            username=data.username,
            full_name=data.full_name,
        )
        session = await open_session(tx, request, context, access_tokens, user.tenant_id, user.user_id)
    return session_cookie.answer(request, context, session, cookie=data.cookie, status=201)


@post("/register", opt={"permission": PUBLIC}, status_code=201)
async def register(
    request: ApiRequest,
    data: JSONBody[UserRegistration],
    platform_database: PlatformDatabaseDep,
    access_tokens: AccessTokensDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> Session:
    """Become a viewer of the tenant that is open for registration, and log in; 403 if no tenant is open."""
    await rate_limiter.hit(RateLimit("join", context.settings.login_limit), source_of(request))
    closed = Forbidden("Registration is closed: ask an administrator for an invitation.")
    if not context.settings.registration_tenant:
        raise closed
    check_password(data.password, data.email, data.username or "", path="password")
    digest = await users.hashed(data.password)
    async with platform_database.transaction() as tx:
        tenant = await tenants.find(tx, context.settings.registration_tenant)
        if tenant is None or not tenant.enabled:
            raise closed
        user = await users.add(
            *(tx, tenant.tenant_id, data.email, digest, "viewer"),
            by=anonymous_actor(request),
            username=data.username,
            full_name=data.full_name,
        )
        return await open_session(tx, request, context, access_tokens, user.tenant_id, user.user_id)


def _check_role(request: ApiRequest, link: one_time_links.OneTimeLink) -> None:
    if not is_at_least(request.auth.role, link.role or "owner"):
        raise Forbidden("This invitation is for a role above your own.")


def view(
    link: one_time_links.OneTimeLink, token: str | None = None, context: ServerContext | None = None
) -> LinkView:
    """Return the API representation of a link, with its token only in the answer that created it."""
    page = "invitation" if link.purpose == "invitation" else "password"
    return LinkView(
        id=link.link_id,
        email=link.email,
        role=link.role,
        created_at=link.created_at,
        expires_at=link.expires_at,
        token=token,
        url=f"{context.settings.site}/{page}#token={token}" if context and token else None,
    )


router = Router("/auth", route_handlers=[invite, list_invitations, withdraw, accept, register], tags=["auth"])
