"""Who makes a request: an operator, an integration or an agent, found by the credential it shows."""

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

CACHE_SECONDS: Final = 1.0  # seconds a credential is believed; so long may somebody go on whom it was taken from
CREDENTIALS_LIMIT: Final = 20_000  # credentials remembered
HEADERS: Final = ("x-device-api-key", "x-agent-key", "x-api-key")


class NoCredential(Unauthorized):
    """Send the header `Authorization: Bearer <accessToken>`; POST /api/v1/auth/login gives one."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who it is and what it may do; `is_proven` is False for an agent that has not proved its key yet."""

    kind: Literal["user", "key", "agent"]
    tenant: TenantId
    id: UUID
    name: str
    role: str = ""
    scopes: frozenset[str] | None = None
    session: UUID | None = None
    is_proven: bool = True


class Authenticator:
    """Knows credentials, for a moment from memory."""

    def __init__(
        self, platform_database: Database, tokens: AccessTokens, key: bytes, agent_cache: AgentCache
    ) -> None:
        """`platform_database` sees all tenants; `key` is the server's, which digests are made with."""
        self._agent_cache = agent_cache
        self._platform_database = platform_database
        self._access_tokens = tokens
        self._key = key
        self._known: TTLCache[bytes, Principal] = TTLCache(CREDENTIALS_LIMIT, CACHE_SECONDS, time.monotonic)

    async def authenticate(self, headers: Mapping[str, str], address: str, *, fresh: bool = False) -> Principal:
        """Who shows these headers, asked anew if it must be `fresh`; raises `Unauthorized`."""
        credential = credential_of(headers)
        remembered = hashlib.sha256(credential.encode("utf-8", "replace")).digest()
        principal = self._known.get(remembered)
        if principal is not None and not fresh:
            return principal
        if len(credential) > credentials.LONGEST or credential.count(".") == 2:  # a JWT
            principal = await self._user(credential)
        elif credential.startswith(credentials.INTEGRATION):
            principal = await self._integration(credential)
        else:
            principal = await self._agent(credential, address)
        if principal.is_proven:  # who is not may be the next moment
            self._known[remembered] = principal
        return principal

    async def _user(self, token: str) -> Principal:
        claims = self._access_tokens.check(token)
        async with self._platform_database.transaction() as tx:
            member = await sessions.live(tx, claims.sid)
        if member is None or member.user_id != claims.sub:
            raise Unauthorized("this session has ended: log in again")
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
            found = await api_keys.find(tx, credentials.digest(self._key, secret))
        if found is None:
            raise Unauthorized("this API key is unknown, revoked or has expired")
        scopes = None if found.scopes is None else frozenset(found.scopes)
        return Principal(
            kind="key", tenant=found.tenant_id, id=found.key_id, name=found.name, role=found.role, scopes=scopes
        )

    async def _agent(self, secret: str, address: str) -> Principal:
        digest = credentials.digest(self._key, secret)
        known = self._agent_cache.key_holder(digest)
        holder = known if self._agent_cache.is_current else None
        if holder is None:
            try:
                holder = await self._holder(digest, address)
            except Unavailable:
                if known is None:
                    raise
                holder = known  # a poll that fails silences an agent
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
    """The credential that a request shows; raises `NoCredential`."""
    for name in HEADERS:
        if value := headers.get(name):
            return value.strip()
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise NoCredential
    return credential.strip()
