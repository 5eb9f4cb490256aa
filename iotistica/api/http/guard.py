"""The guard that every route stands behind: who it is, whether it may, and how often."""

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
"""Wrong credentials from one address a minute, in times the log-ins that it may try."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Guard:
    """Callable for Litestar's `guards`; leaves the principal in `request.auth`."""

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
        # What administers is asked anew each time: who was an administrator a moment ago makes nobody another.
        principal = await self._identify(connection, fresh=rule is not None and rule.is_administration)
        connection.scope["auth"] = principal
        if principal.kind == "agent":
            _check_agent(principal, permission, connection, handler)
            if not handler.opt.get("unlimited"):
                await self._rate_limiter.hit(self._agent, str(principal.id), tenant=principal.tenant)
            return
        if permission == AGENT or rule is None:
            raise Forbidden("this route is the agent's own")
        if principal.kind == "key" and not rule.api_keys:
            raise Forbidden("an API key may not do this: log in as a user")
        if not is_allowed(permission, principal.role, principal.scopes):
            raise Forbidden(
                f"this needs the role {rule.minimum_role}"
                + (f" and the scope {permission}" * (principal.kind == "key"))
            )
        await self._rate_limiter.hit(
            self._rare if rule.is_administration else self._user, str(principal.id), tenant=principal.tenant
        )
        self._parameters.check(connection, handler)  # agents of every age may send what we do not know

    async def _identify(self, connection: Connection, *, fresh: bool) -> Principal:
        """Who it is. Wrong credentials count against the address they come from, right ones never wait for it."""
        try:
            return await self._authenticator.authenticate(connection.headers, address_of(connection), fresh=fresh)
        except Unauthorized as exc:
            if not isinstance(exc, NoCredential):
                await self._rate_limiter.hit(self._wrong, source_of(connection))
            raise

    async def _check_broker(self, connection: Connection) -> None:
        """The secret comes as a bearer token, or in the query: some brokers can send no header."""
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or connection.query_params.get("secret", "")
        if not self._broker_secret:
            raise NotFound
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._broker_secret.encode()):
            await self._rate_limiter.hit(self._wrong, source_of(connection))
            raise Unauthorized("the broker's secret is missing or wrong; see IOTISTICA_BROKER_SECRET")


def _check_agent(principal: Principal, permission: str, connection: Connection, handler: BaseRouteHandler) -> None:
    rule = PERMISSIONS.get(permission)
    if permission != AGENT and (rule is None or not rule.agents):
        raise Forbidden("an agent may not do this")
    if connection.path_params.get("agent", principal.id) != principal.id:
        raise NotFound  # whether there is such an agent is none of its business
    if not principal.is_proven and not handler.opt.get("unproven"):
        raise Forbidden("this agent has not proved its key yet: POST /api/v1/device/{uuid}/key-exchange")


def tenant_of(request: ApiRequest) -> TenantId:
    """The tenant of the caller."""
    return request.auth.tenant


def actor_of(request: ApiRequest) -> Actor:
    """The caller, as the audit names it."""
    who = request.auth
    return Actor(kind=who.kind, id=str(who.id), name=who.name, address=address_of(request))


def anonymous_actor(request: ApiRequest) -> Actor:
    """A caller that is not logged in, as the audit names it."""
    return Actor(kind="anybody", address=address_of(request))


def address_of(connection: Any) -> str:
    """The caller's address; a proxy's word for it is taken only where `IOTISTICA_TRUSTED_PROXIES` says so."""
    return connection.client.host if connection.client else "unknown"


def source_of(connection: Any) -> str:
    """What limits count by: the address, and of IPv6 the network of 64 bits that one customer has."""
    address = address_of(connection)
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Network((parsed, 64), strict=False))
    return address


def wrong_credentials_limit(settings: Settings) -> RateLimit:
    """How many wrong credentials may come from one address."""
    return RateLimit("wrong", settings.login_limit * WRONG_CREDENTIALS)
