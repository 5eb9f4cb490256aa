"""Routes that change a password or reset it by a link, and the password check at login."""

from typing import Annotated, Final

import msgspec
from litestar import Router, post
from litestar.params import JSONBody
from msgspec import Meta

from iotistica.api.http.dependencies import (
    ApiRequest,
    DatabaseDep,
    PlatformDatabaseDep,
    RateLimiterDep,
    ServerContextDep,
)
from iotistica.api.http.guard import actor_of, address_of, anonymous_actor, source_of, tenant_of
from iotistica.api.http.inputs import Password
from iotistica.domain.access import credentials, passwords
from iotistica.domain.access.permissions import PUBLIC
from iotistica.domain.names import compared
from iotistica.errors import Invalid, TooMany, Unauthorized
from iotistica.storage.access import login_failures, one_time_links, sessions, users
from iotistica.storage.access.rate_limits import RateLimit
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Database

WRONG_LOGIN: Final = "The e-mail address, user name or password is wrong."


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    current_password: Password
    new_password: Password


class PasswordReset(msgspec.Struct, frozen=True, kw_only=True):
    """Either an e-mail address to request a link for, or the token of a link and the new password."""

    email: Annotated[str, Meta(max_length=254)] = ""
    token: Annotated[str, Meta(max_length=credentials.LONGEST)] = ""
    password: Password = ""


class PasswordMessage(msgspec.Struct, frozen=True, kw_only=True):
    message: str


async def checked(
    platform_database: Database, key: bytes, login: str, password: str, source: str, by: Actor
) -> users.LoginCredentials:
    """Return the user with this login name and password; raises `Unauthorized`, or `TooMany` after many failures.

    Failures are counted by name and source, so that a stranger elsewhere locks nobody out, and, with a higher
    limit, by name alone, against guessing from many sources.
    """
    async with platform_database.transaction() as tx:
        user = await users.credentials(tx, login)
        counters = _counters(key, f"user {user.user_id}" if user else f"nobody {compared(login).lower()}", source)
        for digest, free in counters:
            failures, seconds_ago = await login_failures.count(tx, digest)
            wait = passwords.lock_seconds(failures, free) - seconds_ago
            if wait > 0:
                raise TooMany("Too many wrong passwords: wait and try again.", seconds=wait)
    if await users.password_matches(user.password_hash if user else users.UNKNOWN_USER_HASH, password) and user:
        async with platform_database.transaction() as tx:
            for digest, _ in counters:
                await login_failures.clear(tx, digest)
        return user
    async with platform_database.transaction() as tx:
        (by_source, _), (by_name, _) = counters
        failures = await login_failures.add(tx, by_source)
        if failures <= passwords.FREE:  # above, the source is locked, and no longer counts against the name
            await login_failures.add(tx, by_name)
        if user:
            facts = {"failures": failures, "locked_seconds": passwords.lock_seconds(failures)}
            await audit.record(tx, user.tenant_id, by, "login.failed", ("user", user.user_id), after=facts)
    raise Unauthorized(WRONG_LOGIN)


def _counters(key: bytes, name: str, source: str) -> list[tuple[bytes, int]]:
    """Return the counters of wrong passwords and their free failures: by name and source, and by name alone."""
    by_source, by_name = f"here\0{name}\0{source}", f"anywhere\0{name}"
    return [
        (credentials.digest(key, by_source), passwords.FREE),
        (credentials.digest(key, by_name), passwords.FREE_EVERYWHERE),
    ]


@post("/change-password", opt={"permission": "self"}, status_code=200)
async def change_password(
    request: ApiRequest,
    data: JSONBody[PasswordChange],
    database: DatabaseDep,
    platform_database: PlatformDatabaseDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> PasswordMessage:
    """Change your own password; your other sessions end."""
    principal, tenant = request.auth, tenant_of(request)
    await rate_limiter.hit(RateLimit("password", context.settings.login_limit), source_of(request))
    check_password(data.new_password, principal.name, path="newPassword")
    await _checked_own(platform_database, context.key, request, data.current_password)
    digest = await users.hashed(data.new_password)
    async with database.transaction(tenant) as tx:
        await users.set_password(tx, tenant, principal.id, digest, by=actor_of(request))
        await one_time_links.withdraw_for_user(tx, tenant, principal.id, made=False, by=actor_of(request))
        ended = await sessions.end(tx, tenant, principal.id, by=actor_of(request), exclude=principal.session)
    return PasswordMessage(message=f"The password is changed; {ended} other session{'s' * (ended != 1)} ended.")


async def _checked_own(platform_database: Database, key: bytes, request: ApiRequest, password: str) -> None:
    try:
        user = await checked(
            platform_database, key, request.auth.name, password, source_of(request), actor_of(request)
        )
    except Unauthorized:
        user = None
    if user is None or user.user_id != request.auth.id:
        raise Invalid("is not your current password", "currentPassword")


@post("/password/reset", opt={"permission": PUBLIC}, status_code=202)
async def reset_password(
    request: ApiRequest,
    data: JSONBody[PasswordReset],
    platform_database: PlatformDatabaseDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> PasswordMessage:
    """Set a new password with the token of a link, or request such a link from the administrators.

    To request a link, send only the e-mail address. The answer is the same whether or not a user has that address;
    the administrators find the request in the audit log.
    """
    await rate_limiter.hit(RateLimit("reset", context.settings.login_limit), source_of(request))
    if not data.token:
        async with platform_database.transaction() as tx:
            if data.email and (found := await users.credentials(tx, data.email)):
                subject = ("user", found.user_id)
                await audit.record(tx, found.tenant_id, anonymous_actor(request), "user.reset_asked", subject)
        return PasswordMessage(
            message="If a user has this address, the administrators see the request in the audit log."
        )
    check_password(data.password, path="password")
    digest = await users.hashed(data.password)
    async with platform_database.transaction() as tx:
        link = await one_time_links.use(tx, "password", credentials.digest(context.key, data.token))
        if link is None or link.user_id is None:
            raise Unauthorized("This link is unknown, used or expired: ask for a new one.")
        check_password(data.password, link.email, path="password")
        by = Actor(kind="link", id=str(link.link_id), name=link.email, address=address_of(request))
        await users.set_password(tx, link.tenant_id, link.user_id, digest, by=by)
        await sessions.end(tx, link.tenant_id, link.user_id, by=by)
        await one_time_links.withdraw_for_user(tx, link.tenant_id, link.user_id, made=False, by=by)
        for counter, _ in _counters(context.key, f"user {link.user_id}", source_of(request)):
            await login_failures.clear(tx, counter)
    return PasswordMessage(message="The password is changed: log in with it.")


def check_password(password: str, *about: str, path: str) -> None:
    """Raise `Invalid` for an unacceptable password; `about` are the known names of its user."""
    if problem := passwords.problem(compared(password), *about):
        raise Invalid(problem, path)


router = Router("/auth", route_handlers=[change_password, reset_password], tags=["auth"])
