"""The guard of every route: authenticates the caller, checks its permission, and limits its rate."""

import hmac
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from iotistica.api.http.authentication import Authenticator, NoCredential, Principal
from iotistica.api.http.dependencies import ApiRequest
from iotistica.api.http.query_parameters import QueryParameters
from iotistica.domain.access.permissions import AGENT, BROKER, PERMISSIONS, PUBLIC, is_allowed
from iotistica.domain.ids import TenantId
from iotistica.errors import Forbidden, NotFound, Unauthorized
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import RateLimit, RateLimiter
from iotistica.storage.history.audit import Actor

WRONG_CREDENTIALS: Final = 30
"""The limit of wrong credentials from one address, as a multiple of its login limit."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Guard:
    """A callable for Litestar's `guards`; it puts the principal into `request.auth`."""

    def __init__(self, authenticator: Authenticator, rate_limiter: RateLimiter, settings: Settings) -> None:
        self._authenticator = authenticator
        self._rate_limiter = rate_limiter
        self._broker_secret = settings.broker_secret
        self._user = RateLimit("user", settings.user_limit)
        self._rare = RateLimit("administration", settings.admin_limit)
        self._agent = RateLimit("agent", settings.agent_limit)
        self._wrong = wrong_credentials_limit(settings)
        self._parameters = QueryParameters()

    async def __call__(self, connection: Connection, handler: BaseRouteHandler) -> None:
        permission = handler.opt.get("permission", "")
        if permission == PUBLIC:
            return
        if permission == BROKER:
            await self._check_broker(connection)
            return
        rule = PERMISSIONS.get(permission)
        # Administration is never authorized from the cache: a former administrator must not appoint another one.
        principal = await self._identify(connection, fresh=rule is not None and rule.is_administration)
        connection.scope["auth"] = principal
        if principal.kind == "agent":
            _check_agent(principal, permission, connection, handler)
            if not handler.opt.get("unlimited"):
                await self._rate_limiter.hit(self._agent, str(principal.id), tenant=principal.tenant)
            return
        if permission == AGENT or rule is None:
            raise Forbidden("Only agents can use this route.")
        if principal.kind == "key" and not rule.api_keys:
            raise Forbidden("An API key cannot do this: log in as a user.")
        if not is_allowed(permission, principal.role, principal.scopes):
            raise Forbidden(
                f"This requires the role {rule.minimum_role}"
                + (f" and the scope {permission}" * (principal.kind == "key"))
                + "."
            )
        await self._rate_limiter.hit(
            self._rare if rule.is_administration else self._user, str(principal.id), tenant=principal.tenant
        )
        self._parameters.check(connection, handler)  # not for agents: any version may send unknown ones

    async def _identify(self, connection: Connection, *, fresh: bool) -> Principal:
        """Return the principal. Wrong credentials count against their address; valid ones are not limited by it."""
        try:
            return await self._authenticator.authenticate(connection.headers, address_of(connection), fresh=fresh)
        except Unauthorized as exc:
            if not isinstance(exc, NoCredential):
                await self._rate_limiter.hit(self._wrong, source_of(connection))
            raise

    async def _check_broker(self, connection: Connection) -> None:
        """Check the broker's secret: a bearer token, or in the query, since some brokers cannot send headers."""
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        secret = bearer or connection.query_params.get("secret", "")
        if not self._broker_secret:
            raise NotFound
        if not hmac.compare_digest(secret.encode("utf-8", "replace"), self._broker_secret.encode()):
            await self._rate_limiter.hit(self._wrong, source_of(connection))
            raise Unauthorized("the broker's secret is missing or wrong; see IOTISTICA_BROKER_SECRET")


def _check_agent(principal: Principal, permission: str, connection: Connection, handler: BaseRouteHandler) -> None:
    rule = PERMISSIONS.get(permission)
    if permission != AGENT and (rule is None or not rule.agents):
        raise Forbidden("an agent may not do this")
    if connection.path_params.get("agent", principal.id) != principal.id:
        raise NotFound  # an agent must not learn whether another agent exists
    if not principal.is_proven and not handler.opt.get("unproven"):
        raise Forbidden("this agent has not proved its key yet: POST /api/v1/device/{uuid}/key-exchange")


def tenant_of(request: ApiRequest) -> TenantId:
    """Return the tenant of the caller."""
    return request.auth.tenant


def actor_of(request: ApiRequest) -> Actor:
    """Return the caller as an actor of the audit log."""
    principal = request.auth
    return Actor(kind=principal.kind, id=str(principal.id), name=principal.name, address=address_of(request))


def anonymous_actor(request: ApiRequest) -> Actor:
    """Return a caller without a login as an actor of the audit log."""
    return Actor(kind="anybody", address=address_of(request))


def address_of(connection: Any) -> str:
    """Return the caller's address; from a proxy's header only if `IOTISTICA_TRUSTED_PROXIES` has the proxy."""
    return connection.client.host if connection.client else "unknown"


def source_of(connection: Any) -> str:
    """Return the key of rate limits: the address, or for IPv6 its /64 network, which one customer owns."""
    address = address_of(connection)
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Network((parsed, 64), strict=False))
    return address


def wrong_credentials_limit(settings: Settings) -> RateLimit:
    """Return the limit of wrong credentials from one address."""
    return RateLimit("wrong", settings.login_limit * WRONG_CREDENTIALS)
