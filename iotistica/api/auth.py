"""Log-in, and the guard that every other route stands behind."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Router, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody
from msgspec import Meta

from iotistica.api.given import Call, Data, Signer
from iotistica.api.tokens import LIFETIME, Tokens, now
from iotistica.domain.ids import TenantId
from iotistica.errors import Forbidden, Unauthorized
from iotistica.storage import users

ROLES: Final = ("viewer", "operator", "manager", "admin", "owner")
"""Each may do what those before it may."""

PERMISSIONS: Final = {"read": "viewer"}
"""The least role for a permission; every route names one in its `opt`."""

PUBLIC: Final = "public"


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    password: Annotated[str, Meta(max_length=1024)]
    email: Annotated[str, Meta(max_length=254)] = ""
    username: Annotated[str, Meta(max_length=254)] = ""


class UserView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    email: str
    role: str
    tenant_id: str


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    access_token: str
    expires_in: int
    user: UserView


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Check the bearer token and its role's permission; leaves the claims in `request.auth`."""
    permission = handler.opt.get("permission")
    if permission == PUBLIC:
        return
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized(
            "send the header `Authorization: Bearer <accessToken>`; POST /api/v1/auth/login gives one"
        )
    tokens: Tokens = connection.app.state.tokens
    claims = tokens.check(token.strip())
    least = PERMISSIONS.get(permission or "")
    if least is None or claims.role not in ROLES or ROLES.index(claims.role) < ROLES.index(least):
        raise Forbidden
    connection.scope["auth"] = claims


def tenant_of(request: Call) -> TenantId:
    """The tenant of the caller."""
    return TenantId(request.auth.tenant)


@post("/login", opt={"permission": PUBLIC}, status_code=200)
async def login(data: JSONBody[Login], database: Data, tokens: Signer) -> Session:
    """Exchange e-mail and password for an access token."""
    async with database.transaction() as tx:
        user_id, digest = await users.credentials(tx, data.email or data.username)
    if not await users.password_matches(digest, data.password) or user_id is None:
        raise Unauthorized("wrong e-mail or password")
    async with database.transaction() as tx:
        user = await users.get(tx, user_id)
    if user is None:
        raise Unauthorized("wrong e-mail or password")
    token = tokens.issue(user=user.user_id, tenant=user.tenant_id, role=user.role, now=now())
    return Session(access_token=token, expires_in=int(LIFETIME.total_seconds()), user=_view(user))


@get("/me", opt={"permission": "read"})
async def me(request: Call, database: Data) -> UserView:
    """Who is logged in."""
    async with database.transaction() as tx:
        user = await users.get(tx, request.auth.sub)
    if user is None:
        raise Unauthorized
    return _view(user)


def _view(user: users.User) -> UserView:
    return UserView(id=str(user.user_id), email=user.email, role=user.role, tenant_id=user.tenant_id)


router = Router("/auth", route_handlers=[login, me], tags=["auth"])
