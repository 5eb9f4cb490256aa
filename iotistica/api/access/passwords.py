"""Passwords: checked at log-in, changed, and reset by a link."""

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
from iotistica.errors import Invalid, TooMany, Unauthorized
from iotistica.storage.access import login_failures, one_time_links, sessions, users
from iotistica.storage.access.rate_limits import RateLimit
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Database

WRONG_LOGIN: Final = "wrong e-mail, user name or password"


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    current_password: Password
    new_password: Password


class PasswordReset(msgspec.Struct, frozen=True, kw_only=True):
    """An address to ask for a link; or the link's token, and the new password."""

    email: Annotated[str, Meta(max_length=254)] = ""
    token: Annotated[str, Meta(max_length=credentials.LONGEST)] = ""
    password: Password = ""


class PasswordMessage(msgspec.Struct, frozen=True, kw_only=True):
    message: str


async def checked(
    platform_database: Database, key: bytes, login: str, password: str, source: str, by: Actor
) -> users.LoginCredentials:
    """Whose name and password these are; raises `Unauthorized`, or `TooMany` after many wrong ones.

    Wrong ones are counted by name and source, so that a stranger elsewhere locks nobody out, and with a wider bound
    by name alone, for those who guess from everywhere.
    """
    async with platform_database.transaction() as tx:
        found = await users.credentials(tx, login)
        counters = _counters(key, f"user {found.user_id}" if found else f"nobody {login.lower()}", source)
        for digest, free in counters:
            failures, ago = await login_failures.count(tx, digest)
            wait = passwords.lock_seconds(failures, free) - ago
            if wait > 0:
                raise TooMany("too many wrong passwords; wait and try again", seconds=wait)
    if await users.password_matches(found.password_hash if found else users.UNKNOWN_USER_HASH, password) and found:
        async with platform_database.transaction() as tx:
            for digest, _ in counters:
                await login_failures.clear(tx, digest)
        return found
    async with platform_database.transaction() as tx:
        (here, _), (anywhere, _) = counters
        failures = await login_failures.add(tx, here)
        if failures <= passwords.FREE:  # beyond, this source is locked: it counts against nobody elsewhere
            await login_failures.add(tx, anywhere)
        if found:
            facts = {"failures": failures, "locked_seconds": passwords.lock_seconds(failures)}
            await audit.record(tx, found.tenant_id, by, "login.failed", ("user", found.user_id), after=facts)
    raise Unauthorized(WRONG_LOGIN)


def _counters(key: bytes, name: str, source: str) -> list[tuple[bytes, int]]:
    """What wrong passwords are counted by, each with how many cost nothing: name and source, and name alone."""
    here, anywhere = f"here\0{name}\0{source}", f"anywhere\0{name}"
    return [
        (credentials.digest(key, here), passwords.FREE),
        (credentials.digest(key, anywhere), passwords.FREE_EVERYWHERE),
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
    """Set another password of your own; your other sessions end."""
    who, tenant = request.auth, tenant_of(request)
    await rate_limiter.hit(RateLimit("password", context.settings.login_limit), source_of(request))
    check_password(data.new_password, who.name, path="newPassword")
    await _checked_own(platform_database, context.key, request, data.current_password)
    digest = await users.hashed(data.new_password)
    async with database.transaction(tenant) as tx:
        await users.set_password(tx, tenant, who.id, digest, by=actor_of(request))
        await one_time_links.withdraw_for_user(tx, tenant, who.id, made=False, by=actor_of(request))
        ended = await sessions.end(tx, tenant, who.id, by=actor_of(request), but=who.session)
    return PasswordMessage(message=f"the password is changed; {ended} other session{'s' * (ended != 1)} ended")


async def _checked_own(platform_database: Database, key: bytes, request: ApiRequest, password: str) -> None:
    try:
        found = await checked(
            platform_database, key, request.auth.name, password, source_of(request), actor_of(request)
        )
    except Unauthorized:
        found = None
    if found is None or found.user_id != request.auth.id:
        raise Invalid("this is not your current password", "currentPassword")


@post("/password/reset", opt={"permission": PUBLIC}, status_code=202)
async def reset_password(
    request: ApiRequest,
    data: JSONBody[PasswordReset],
    platform_database: PlatformDatabaseDep,
    rate_limiter: RateLimiterDep,
    context: ServerContextDep,
) -> PasswordMessage:
    """Set a password with the token of a link; or, by an address, ask the administrators for such a link.

    The answer to an address is the same whether or not somebody has it.
    """
    await rate_limiter.hit(RateLimit("reset", context.settings.login_limit), source_of(request))
    if not data.token:
        async with platform_database.transaction() as tx:
            if data.email and (found := await users.credentials(tx, data.email)):
                subject = ("user", found.user_id)
                await audit.record(tx, found.tenant_id, anonymous_actor(request), "user.reset_asked", subject)
        return PasswordMessage(
            message="if somebody has this address, the administrators see the request in the audit"
        )
    check_password(data.password, path="password")
    digest = await users.hashed(data.password)
    async with platform_database.transaction() as tx:
        link = await one_time_links.use(tx, "password", credentials.digest(context.key, data.token))
        if link is None or link.user_id is None:
            raise Unauthorized("this link is unknown, used or has expired: ask for another")
        check_password(data.password, link.email, path="password")
        by = Actor(kind="link", id=str(link.link_id), name=link.email, address=address_of(request))
        await users.set_password(tx, link.tenant_id, link.user_id, digest, by=by)
        await sessions.end(tx, link.tenant_id, link.user_id, by=by)
        await one_time_links.withdraw_for_user(tx, link.tenant_id, link.user_id, made=False, by=by)
        for counted, _ in _counters(context.key, f"user {link.user_id}", source_of(request)):
            await login_failures.clear(tx, counted)
    return PasswordMessage(message="the password is changed: log in with it")


def check_password(password: str, *about: str, path: str) -> None:
    """Raise `Invalid` for a password that is not taken."""
    if problem := passwords.problem(password, *about):
        raise Invalid(problem, path)


router = Router("/auth", route_handlers=[change_password, reset_password], tags=["auth"])
