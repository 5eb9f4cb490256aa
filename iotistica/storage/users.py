"""Operators and their passwords."""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from iotistica.domain.ids import TenantId
from iotistica.errors import Conflict
from iotistica.storage.postgres import Tx, row_as

# OWASP's second choice for argon2id: 19 MiB, 2 passes, 1 lane; 45 ms.
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
UNKNOWN: Final = HASHER.hash("a user that does not exist takes as long to refuse")


class User(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UUID
    tenant_id: TenantId
    email: str
    role: str
    created_at: datetime


class _Login(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UUID
    password_hash: str


ADD: Final = """
INSERT INTO users (tenant_id, email, password_hash, role)
VALUES (%(tenant)s, %(email)s, %(hash)s, %(role)s)
ON CONFLICT DO NOTHING RETURNING user_id, tenant_id, email, role, created_at
"""


async def add(tx: Tx, tenant: TenantId, email: str, password: str, role: str) -> User:
    """Make a user; the password is hashed off the event loop. Raises `Conflict`."""
    digest = await asyncio.to_thread(HASHER.hash, password)
    row = await row_as(tx, User, ADD, {"tenant": tenant, "email": email, "hash": digest, "role": role})
    if row is None:
        raise Conflict(f"{email} is a user already")
    return row


BY_EMAIL: Final = """
SELECT user_id, password_hash FROM users JOIN tenants USING (tenant_id)
WHERE lower(email) = lower(%(email)s) AND enabled
"""


async def credentials(tx: Tx, email: str) -> tuple[UUID | None, str]:
    """The user of that address and the hash to check; for an unknown address a hash that nothing matches."""
    row = await row_as(tx, _Login, BY_EMAIL, {"email": email})
    return (row.user_id, row.password_hash) if row else (None, UNKNOWN)


async def password_matches(digest: str, password: str) -> bool:
    """Check a password off the event loop."""
    try:
        return await asyncio.to_thread(HASHER.verify, digest, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


GET: Final = "SELECT user_id, tenant_id, email, role, created_at FROM users WHERE user_id = %(user)s"


async def get(tx: Tx, user: UUID) -> User | None:
    """One user by id; ids come from tokens we signed."""
    return await row_as(tx, User, GET, {"user": user})


ANY: Final = "SELECT user_id, tenant_id, email, role, created_at FROM users WHERE tenant_id = %(tenant)s LIMIT 1"


async def any_of(tx: Tx, tenant: TenantId) -> User | None:
    """Some user of a tenant, or None if it has none."""
    return await row_as(tx, User, ANY, {"tenant": tenant})
