"""Authentication: finds the user, API key or agent that a request's credential belongs to."""

import hashlib
import time
from collections.abc import Mapping
from typing import Final, Literal
from uuid import UUID

import msgspec
from cachetools import TTLCache

from iotistica.api.http.access_tokens import AccessTokens
from iotistica.domain.access import credentials
from iotistica.domain.ids import TenantId
from iotistica.errors import Unauthorized, Unavailable
from iotistica.storage.access import api_keys, sessions
from iotistica.storage.agents import agent_keys
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.agents.agent_keys import KeyHolder
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Database

CACHE_SECONDS: Final = 1.0  # seconds a credential is cached; a revoked one works that long
CREDENTIALS_LIMIT: Final = 20_000  # cached credentials
HEADERS: Final = ("x-device-api-key", "x-agent-key", "x-api-key")


class NoCredential(Unauthorized):
    """Send the header `Authorization: Bearer <accessToken>`; POST /api/v1/auth/login gives one."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated caller and its rights; `is_proven` is False for an agent that has not proved its key."""

    kind: Literal["user", "key", "agent"]
    tenant: TenantId
    id: UUID
    name: str
    role: str = ""
    scopes: frozenset[str] | None = None
    session: UUID | None = None
    is_proven: bool = True


class Authenticator:
    """Authenticates credentials, and caches the results for `CACHE_SECONDS`."""

    def __init__(
        self, platform_database: Database, tokens: AccessTokens, key: bytes, agent_cache: AgentCache
    ) -> None:
        """`platform_database` sees all tenants; `key` is the server's key, with which secrets are digested."""
        self._agent_cache = agent_cache
        self._platform_database = platform_database
        self._access_tokens = tokens
        self._key = key
        self._cache: TTLCache[bytes, Principal] = TTLCache(CREDENTIALS_LIMIT, CACHE_SECONDS, time.monotonic)

    async def authenticate(self, headers: Mapping[str, str], address: str, *, fresh: bool = False) -> Principal:
        """Return the principal of a request's headers; `fresh` bypasses the cache. Raises `Unauthorized`."""
        credential = credential_of(headers)
        cache_key = hashlib.sha256(credential.encode("utf-8", "replace")).digest()
        principal = self._cache.get(cache_key)
        if principal is not None and not fresh:
            return principal
        if len(credential) > credentials.LONGEST or credential.count(".") == 2:  # a JWT
            principal = await self._user(credential)
        elif credential.startswith(credentials.INTEGRATION):
            principal = await self._integration(credential)
        else:
            principal = await self._agent(credential, address)
        if principal.is_proven:  # an unproven agent can prove its key at any moment
            self._cache[cache_key] = principal
        return principal

    async def _user(self, token: str) -> Principal:
        claims = self._access_tokens.check(token)
        async with self._platform_database.transaction() as tx:
            member = await sessions.live(tx, claims.sid)
        if member is None or member.user_id != claims.sub:
            raise Unauthorized("This session has ended: log in again.")
        return Principal(
            kind="user",
            tenant=member.tenant_id,
            id=member.user_id,
            name=member.email,
            role=member.role,
            session=member.session_id,
        )

    async def _integration(self, secret: str) -> Principal:
        async with self._platform_database.transaction() as tx:
            api_key = await api_keys.find(tx, credentials.digest(self._key, secret))
        if api_key is None:
            raise Unauthorized("This API key is unknown, revoked or expired.")
        scopes = None if api_key.scopes is None else frozenset(api_key.scopes)
        return Principal(
            kind="key",
            tenant=api_key.tenant_id,
            id=api_key.key_id,
            name=api_key.name,
            role=api_key.role,
            scopes=scopes,
        )

    async def _agent(self, secret: str, address: str) -> Principal:
        digest = credentials.digest(self._key, secret)
        cached = self._agent_cache.key_holder(digest)
        holder = cached if self._agent_cache.is_current else None
        if holder is None:
            try:
                holder = await self._holder(digest, address)
            except Unavailable:
                if cached is None:
                    raise
                holder = cached  # possibly outdated, but a failed poll would make the agent pause
        return Principal(
            kind="agent",
            tenant=holder.tenant_id,
            id=holder.agent_uuid,
            name=holder.name,
            is_proven=holder.state == "active",
        )

    async def _holder(self, digest: bytes, address: str) -> KeyHolder:
        async with self._platform_database.transaction() as tx:
            holder = await agent_keys.find(tx, digest)
            if holder is None:
                raise Unauthorized("this key is unknown, revoked or has expired")
            if holder.is_new:
                by = Actor(kind="agent", id=str(holder.agent_uuid), name=holder.name, address=address)
                await agent_keys.record_first_use(tx, holder, digest, by=by)
        return holder


def credential_of(headers: Mapping[str, str]) -> str:
    """Return the credential in a request's headers; raises `NoCredential`."""
    for name in HEADERS:
        if value := headers.get(name):
            return value.strip()
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise NoCredential
    return credential.strip()
