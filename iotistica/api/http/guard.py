"""The guard that every route stands behind: who it is, whether it may, and how often."""

import hmac
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from iotistica.api.http.authentication import Doorman, NoCredential, Principal
from iotistica.api.http.dependencies import Call
from iotistica.api.http.query_parameters import Parameters
from iotistica.domain.access.permissions import AGENT, BROKER, PERMISSIONS, PUBLIC, may
from iotistica.domain.ids import TenantId
from iotistica.errors import Forbidden, NotFound, Unauthorized
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import Limit, Limits
from iotistica.storage.history.audit import Actor

WRONG: Final = 30
"""Wrong credentials from one address a minute, in times the log-ins that it may try."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Guard:
    """Callable for Litestar's `guards`; leaves the principal in `request.auth`."""

    def __init__(self, doorman: Doorman, limits: Limits, settings: Settings) -> None:
        self._doorman = doorman
        self._limits = limits
        self._broker_secret = settings.broker_secret
        self._user = Limit("user", settings.user_limit)
        self._rare = Limit("administration", settings.admin_limit)
        self._agent = Limit("agent", settings.agent_limit)
        self._wrong = wrong(settings)
        self._parameters = Parameters()

    async def __call__(self, connection: Connection, handler: BaseRouteHandler) -> None:
        permission = handler.opt.get("permission", "")
        if permission == PUBLIC:
            return
        if permission == BROKER:
            await self._check_broker(connection)
            return
        rule = PERMISSIONS.get(permission)
        # What administers is asked anew each time: who was an administrator a moment ago makes nobody another.
        principal = await self._identify(connection, fresh=rule is not None and rule.rare)
        connection.scope["auth"] = principal
        if principal.kind == "agent":
            _check_agent(principal, permission, connection, handler)
            if not handler.opt.get("unlimited"):
                await self._limits.hit(self._agent, str(principal.id), tenant=principal.tenant)
            return
        if permission == AGENT or rule is None:
            raise Forbidden("this route is the agent's own")
        if principal.kind == "key" and not rule.keys:
            raise Forbidden("an API key may not do this: log in as a user")
        if not may(permission, principal.role, principal.scopes):
            raise Forbidden(
                f"this needs the role {rule.least}" + (f" and the scope {permission}" * (principal.kind == "key"))
            )
        await self._limits.hit(self._rare if rule.rare else self._user, str(principal.id), tenant=principal.tenant)
        self._parameters.check(connection, handler)  # agents of every age may send what we do not know

    async def _identify(self, connection: Connection, *, fresh: bool) -> Principal:
        """Who it is. Wrong credentials count against the address they come from, right ones never wait for it."""
        try:
            return await self._doorman.identify(connection.headers, address_of(connection), fresh=fresh)
        except Unauthorized as exc:
            if not isinstance(exc, NoCredential):
                await self._limits.hit(self._wrong, source_of(connection))
            raise

    async def _check_broker(self, connection: Connection) -> None:
        """The secret comes as a bearer token, or in the query: some brokers can send no header."""
        bearer = connection.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or connection.query_params.get("secret", "")
        if not self._broker_secret:
            raise NotFound
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._broker_secret.encode()):
            await self._limits.hit(self._wrong, source_of(connection))
            raise Unauthorized("the broker's secret is missing or wrong; see IOTISTICA_BROKER_SECRET")


def _check_agent(principal: Principal, permission: str, connection: Connection, handler: BaseRouteHandler) -> None:
    rule = PERMISSIONS.get(permission)
    if permission != AGENT and (rule is None or not rule.agents):
        raise Forbidden("an agent may not do this")
    if connection.path_params.get("agent", principal.id) != principal.id:
        raise NotFound  # whether there is such an agent is none of its business
    if not principal.is_proven and not handler.opt.get("unproven"):
        raise Forbidden("this agent has not proved its key yet: POST /api/v1/device/{uuid}/key-exchange")


def tenant_of(request: Call) -> TenantId:
    """The tenant of the caller."""
    return request.auth.tenant


def actor_of(request: Call) -> Actor:
    """The caller, as the audit names it."""
    who = request.auth
    return Actor(kind=who.kind, id=str(who.id), name=who.name, address=address_of(request))


def anybody(request: Call) -> Actor:
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


def wrong(settings: Settings) -> Limit:
    """How many wrong credentials may come from one address."""
    return Limit("wrong", settings.login_limit * WRONG)
