"""Ids of tenants and agents: their text form, and their encoding in topics and broker user names."""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, NewType
from uuid import UUID

TenantId = NewType("TenantId", str)
"""12 lower-case hex characters."""

AgentId = NewType("AgentId", UUID)

TENANT_BYTES: Final = 6
AGENT_BYTES: Final = 16
_TENANT: Final = re.compile(r"[0-9a-f]{12}")
_ALPHABET: Final = re.compile(rb"[A-Za-z0-9_-]+")


def tenant_id(text: str) -> TenantId:
    """Return the text as a tenant id; raises ValueError if it is not one."""
    if not _TENANT.fullmatch(text):
        raise ValueError("a tenant id must be 12 lower-case hex characters")
    return TenantId(text)


def encode_tenant(tenant: TenantId) -> str:
    """Return a tenant id as a topic level: `a1b2c3d4e5f6` -> `obLD1OX2`."""
    return base64url(bytes.fromhex(tenant))


def encode_agent(agent: UUID) -> str:
    """Return a uuid as a topic level: `550e8400-e29b-41d4-a716-446655440000` -> `VQ6EAOKbQdSnFkRmVUQAAA`."""
    return base64url(agent.bytes)


def decode_tenant(text: bytes) -> TenantId:
    """Return the tenant in a topic level; raises ValueError for any other length or alphabet."""
    return TenantId(_decode(text, TENANT_BYTES).hex())


def decode_agent(text: bytes) -> AgentId:
    """Return the agent in a topic level; raises ValueError for any other length or alphabet."""
    return AgentId(UUID(bytes=_decode(text, AGENT_BYTES)))


def agent_user(tenant: TenantId, agent: UUID) -> str:
    """Return an agent's user name at the broker, which is also the part of its topics after `i/`."""
    return f"{encode_tenant(tenant)}/a/{encode_agent(agent)}"


def agent_of_user(user: str) -> tuple[TenantId, AgentId] | None:
    """Return the agent with this user name at the broker; None if the user is not an agent."""
    tenant, between, agent = user.partition("/a/")
    try:
        return (decode_tenant(tenant.encode()), decode_agent(agent.encode())) if between else None
    except ValueError:
        return None


def tenant_user(tenant: TenantId, name: str) -> str:
    """Return the user name at the broker of an MQTT user that the tenant created."""
    return f"{encode_tenant(tenant)}/u/{name}"


def agent_topic(tenant: TenantId, agent: UUID) -> str:
    """Return the prefix of an agent's topics, without a slash at the end."""
    return f"i/{agent_user(tenant, agent)}"


def base64url(raw: bytes) -> str:
    """Encode bytes in base64url (RFC 4648 section 5) without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: bytes, size: int) -> bytes:
    if len(text) != -(-size * 4 // 3) or not _ALPHABET.fullmatch(text):
        raise ValueError("not an id in base64url without padding")
    try:
        raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error as exc:
        raise ValueError("not base64url") from exc
    if len(raw) != size or base64url(raw).encode() != text:
        raise ValueError("not the canonical form of an id")
    return raw
