"""Routes by which administrators manage the users of their tenant."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from iotistica.api.access.invitations import LinkView
from iotistica.api.access.invitations import view as link_view
from iotistica.api.access.passwords import check_password
from iotistica.api.access.session_views import UserView, view
from iotistica.api.http import cursors
from iotistica.api.http.access_tokens import now
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Email, Limit, Name, Password, Username
from iotistica.domain.access import credentials
from iotistica.domain.access.permissions import Role, is_at_least
from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict, Forbidden, NotFound
from iotistica.storage.access import one_time_links, sessions, users
from iotistica.storage.postgres import Tx

RESET_LIFETIME: Final = timedelta(hours=24)


class NewUser(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    email: Email
    password: Password
    role: Role = "viewer"
    username: Username | None = None
    full_name: Name | None = None


class UserChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Absent fields stay unchanged."""

    email: Email | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    username: Username | UnsetType | None = UNSET
    full_name: Name | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET
    password: Password | UnsetType = UNSET


class Users(msgspec.Struct, frozen=True, kw_only=True):
    users: list[UserView]
    count: int
    total: int
    next: str | None


@get("/", opt={"permission": "users.manage"})
async def list_users(
    request: ApiRequest, database: DatabaseDep, limit: Limit = 100, cursor: Cursor = None
) -> Users:
    """List the users of the tenant, ordered by id."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        found = await users.page(tx, tenant, after=cursors.parse_uuid(cursor), limit=limit + 1)
    page, more = cut_page(found, limit, lambda user: str(user.user_id))
    return Users(users=[view(user) for user in page], count=len(page), total=found.total, next=more)


@post("/", opt={"permission": "users.manage"}, status_code=201)
async def add_user(request: ApiRequest, data: JSONBody[NewUser], database: DatabaseDep) -> UserView:
    """Create a user with a password. With an invitation, users choose the password themselves."""
    _check_role(request, data.role)
    check_password(data.password, data.email, data.username or "", path="password")
    digest = await users.hashed(data.password)
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        user = await users.add(
            *(tx, tenant, data.email, digest, data.role),
            by=actor_of(request),
            username=data.username,
            full_name=data.full_name,
        )
    return view(user)


@get("/{user:uuid}", opt={"permission": "users.manage"})
async def get_user(request: ApiRequest, database: DatabaseDep, user: FromPath[UUID]) -> UserView:
    """Return one user."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return view(await _get(tx, tenant, user))


async def change_user(
    request: ApiRequest, data: JSONBody[UserChange], database: DatabaseDep, user: FromPath[UUID]
) -> UserView:
    """Change a user; absent fields stay unchanged.

    A user who is deactivated, or gets another role, e-mail address or password, is logged out at once.
    """
    tenant = tenant_of(request)
    digest = None
    if data.password is not UNSET:
        if user == request.auth.id:
            raise Forbidden("Change your own password with POST /api/v1/auth/change-password.")
        check_password(data.password, path="password")
        digest = await users.hashed(data.password)
    async with database.transaction(tenant) as tx:
        # This locks owners, so it comes before the user is read: the row must not change until it is written.
        is_last = await users.is_last_owner(tx, tenant, user)
        stored = await _get(tx, tenant, user)
        _check_role(request, stored.role)
        fields = {
            name: value
            for name in ("email", "role", "username", "full_name", "active")
            if (value := getattr(data, name)) is not UNSET
        }
        changed = msgspec.structs.replace(stored, **fields)
        _check_role(request, changed.role)
        if data.password is not UNSET:
            check_password(data.password, changed.email, changed.username or "", path="password")
        if is_last and (changed.role != "owner" or not changed.active):
            raise Conflict("This is the last owner: make another user an owner first.")
        if changed != stored:
            changed = await users.update(tx, tenant, stored, changed, by=actor_of(request))
        if digest is not None:
            await users.set_password(tx, tenant, user, digest, by=actor_of(request))
        if (
            digest is not None
            or changed.active < stored.active
            or changed.role != stored.role
            or changed.email != stored.email
        ):
            await sessions.end(tx, tenant, user, by=actor_of(request))
            made = not changed.active or changed.role != stored.role
            await one_time_links.withdraw_for_user(tx, tenant, user, made=made, by=actor_of(request))
    return view(changed)


@delete("/{user:uuid}", opt={"permission": "users.manage"}, status_code=204)
async def delete_user(request: ApiRequest, database: DatabaseDep, user: FromPath[UUID]) -> None:
    """Delete a user; the user's actions stay in the audit log."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        is_last = await users.is_last_owner(tx, tenant, user)
        stored = await _get(tx, tenant, user)
        _check_role(request, stored.role)
        if is_last:
            raise Conflict("This is the last owner: make another user an owner first.")
        await one_time_links.withdraw_for_user(tx, tenant, user, made=True, by=actor_of(request))
        await users.delete(tx, tenant, stored, by=actor_of(request))


@post("/{user:uuid}/password-reset", opt={"permission": "users.manage"}, status_code=201)
async def reset(
    request: ApiRequest, database: DatabaseDep, user: FromPath[UUID], context: ServerContextDep
) -> LinkView:
    """Create a link with which a user sets a new password.

    The link cannot be retrieved later: pass it on to the user.
    """
    if user == request.auth.id:
        raise Forbidden("Change your own password with POST /api/v1/auth/change-password.")
    tenant, secret = tenant_of(request), context.secret(credentials.LINK)
    async with database.transaction(tenant) as tx:
        await users.lock(tx, tenant, user)
        stored = await _get(tx, tenant, user)
        _check_role(request, stored.role)
        link = await one_time_links.add(
            *(tx, tenant, "password", stored.email, secret.digest),
            role=stored.role,
            expires=now() + RESET_LIFETIME,
            by=actor_of(request),
            user=user,
        )
    return link_view(link, secret.text, context)


async def _get(tx: Tx, tenant: TenantId, user: UUID) -> users.User:
    row = await users.get(tx, tenant, user)
    if row is None:
        raise NotFound
    return row


def _check_role(request: ApiRequest, role: str) -> None:
    if not is_at_least(request.auth.role, role):
        raise Forbidden("You cannot assign or change a role above your own.")


router = Router(
    "/users",
    route_handlers=[
        *(list_users, add_user, get_user, delete_user, reset),
        put("/{user:uuid}", opt={"permission": "users.manage"}, operation_id="PutUser")(change_user),
        patch("/{user:uuid}", opt={"permission": "users.manage"}, operation_id="PatchUser")(change_user),
    ],
    tags=["users"],
)
