"""Statements for users, and the hashing of their passwords."""

import asyncio
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from iotistica.domain.ids import TenantId
from iotistica.domain.names import compared
from iotistica.errors import Conflict, NotFound
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Page, Tx, fetch_page, fetch_row

# OWASP's second choice for argon2id: 19 MiB, 2 passes, 1 lane; 45 ms.
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
UNKNOWN_USER_HASH: Final = HASHER.hash("a user that does not exist takes as long to refuse")


class User(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UUID
    tenant_id: TenantId
    email: str
    username: str | None
    full_name: str | None
    role: str
    active: bool
    created_at: datetime

    def facts(self) -> dict[str, Any]:
        """Return the values for the audit log."""
        return {"email": self.email, "username": self.username, "role": self.role, "active": self.active}


class LoginCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """A user and the password hash that a login is checked against."""

    user_id: UUID
    tenant_id: TenantId
    password_hash: str


_COLUMNS: Final = "user_id, tenant_id, email, username, full_name, role, active, created_at"

ADD: Final = f"""
INSERT INTO users (tenant_id, email, username, full_name, password_hash, role)
VALUES (%(tenant)s, %(email)s, %(username)s, %(full_name)s, %(hash)s, %(role)s)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    email: str,
    digest: str,
    role: str,
    *,
    by: Actor,
    username: str | None = None,
    full_name: str | None = None,
) -> User:
    """Add a user; `digest` is the result of `hashed`. Raises `Conflict` if the address or user name is taken."""
    parameters = {"tenant": tenant, "email": compared(email), "username": username, "full_name": full_name}
    row = await fetch_row(tx, User, ADD, parameters | {"hash": digest, "role": role})
    if row is None:
        raise Conflict(f"The address {email} or the user name is taken already.")
    await audit.record(tx, tenant, by, "user.added", ("user", row.user_id), after=row.facts())
    return row


async def hashed(password: str) -> str:
    """Return the argon2id hash of a password in its compared form, computed in a thread."""
    return await asyncio.to_thread(HASHER.hash, compared(password))


async def password_matches(digest: str, password: str) -> bool:
    """Return whether a password matches a hash, computed in a thread.

    Hashes made by versions before 1.0 are of the password as it was typed.
    """
    for form in dict.fromkeys((compared(password), password)):
        try:
            return await asyncio.to_thread(HASHER.verify, digest, form)
        except VerifyMismatchError:
            continue
        except InvalidHashError:
            return False
    return False


BY_LOGIN: Final = """
SELECT user_id, tenant_id, password_hash FROM users JOIN tenants USING (tenant_id)
WHERE (CASE WHEN %(login)s LIKE '%%@%%' THEN lower(email) ELSE lower(username) END) = lower(%(login)s)
  AND active AND enabled
"""


async def credentials(tx: Tx, login: str) -> LoginCredentials | None:
    """Return the active user with this e-mail address or user name, of any enabled tenant, or None."""
    return await fetch_row(tx, LoginCredentials, BY_LOGIN, {"login": compared(login)})


CHANGE_HASH: Final = """
UPDATE users SET password_hash = %(hash)s WHERE tenant_id = %(tenant)s AND user_id = %(user)s RETURNING user_id
"""


async def set_password(tx: Tx, tenant: TenantId, user: UUID, digest: str, *, by: Actor) -> None:
    """Replace the password hash of a user; raises `NotFound`."""
    cursor = await tx.execute(CHANGE_HASH, {"tenant": tenant, "user": user, "hash": digest})
    if cursor.rowcount == 0:
        raise NotFound
    await audit.record(tx, tenant, by, "user.password_changed", ("user", user))


GET: Final = f"SELECT {_COLUMNS} FROM users WHERE tenant_id = %(tenant)s AND user_id = %(user)s"


async def get(tx: Tx, tenant: TenantId, user: UUID) -> User | None:
    """Return a user of a tenant, or None."""
    return await fetch_row(tx, User, GET, {"tenant": tenant, "user": user})


LOCK: Final = "SELECT 1 FROM users WHERE tenant_id = %(tenant)s AND user_id = %(user)s FOR UPDATE"


async def lock(tx: Tx, tenant: TenantId, user: UUID) -> None:
    """Lock a user against changes by other transactions until the commit."""
    await tx.execute(LOCK, {"tenant": tenant, "user": user})


BY_EMAIL: Final = f"SELECT {_COLUMNS} FROM users WHERE tenant_id = %(tenant)s AND lower(email) = lower(%(email)s)"


async def by_email(tx: Tx, tenant: TenantId, email: str) -> User | None:
    """Return the user of a tenant with this e-mail address, or None."""
    return await fetch_row(tx, User, BY_EMAIL, {"tenant": tenant, "email": compared(email)})


PAGE: Final = f"""
SELECT {_COLUMNS} FROM users WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR user_id > %(after)s)
ORDER BY user_id LIMIT %(limit)s
"""


async def page(tx: Tx, tenant: TenantId, *, after: UUID | None, limit: int) -> Page[User]:
    """Return up to `limit` users of a tenant after the id `after`, ordered by id."""
    return await fetch_page(tx, User, PAGE, {"tenant": tenant, "after": after, "limit": limit}, cursor=("after",))


# Locks all owners, so that if two owners remove each other, only one of them succeeds.
OTHER_OWNERS: Final = """
SELECT user_id FROM users WHERE tenant_id = %(tenant)s AND role = 'owner' AND active ORDER BY user_id FOR UPDATE
"""


async def is_last_owner(tx: Tx, tenant: TenantId, user: UUID) -> bool:
    """Return whether this user is the only active owner of a tenant."""
    owners = [row[0] for row in await (await tx.execute(OTHER_OWNERS, {"tenant": tenant})).fetchall()]
    return owners == [user]


UPDATE: Final = f"""
UPDATE users SET email = %(email)s, username = %(username)s, full_name = %(full_name)s, role = %(role)s,
                 active = %(active)s
WHERE tenant_id = %(tenant)s AND user_id = %(user)s RETURNING {_COLUMNS}
"""


async def update(tx: Tx, tenant: TenantId, old: User, new: User, *, by: Actor) -> User:
    """Store the changed fields of a user; raises `NotFound`, and `Conflict` if a name is taken."""
    parameters = {"tenant": tenant, "user": old.user_id, "email": compared(new.email), "username": new.username}
    parameters |= {"full_name": new.full_name, "role": new.role, "active": new.active}
    row = await fetch_row(tx, User, UPDATE, parameters)
    if row is None:
        raise NotFound
    await audit.record(tx, tenant, by, "user.changed", ("user", row.user_id), before=old.facts(), after=row.facts())
    return row


DELETE_LAYOUTS: Final = (
    "DELETE FROM dashboard_layouts WHERE tenant_id = %(tenant)s AND owner_id = %(user)s AND NOT is_shared"
)
DELETE: Final = "DELETE FROM users WHERE tenant_id = %(tenant)s AND user_id = %(user)s"


async def delete(tx: Tx, tenant: TenantId, user: User, *, by: Actor) -> None:
    """Delete a user with its sessions and links, and its dashboards that are not shared."""
    await tx.execute(LOCK, {"tenant": tenant, "user": user.user_id})  # so that no dashboard is added meanwhile
    await tx.execute(DELETE_LAYOUTS, {"tenant": tenant, "user": user.user_id})
    await tx.execute(DELETE, {"tenant": tenant, "user": user.user_id})
    await audit.record(tx, tenant, by, "user.deleted", ("user", user.user_id), before=user.facts())


ANY: Final = f"SELECT {_COLUMNS} FROM users WHERE tenant_id = %(tenant)s LIMIT 1"


async def any_of(tx: Tx, tenant: TenantId) -> User | None:
    """Return any user of a tenant, or None if it has none."""
    return await fetch_row(tx, User, ANY, {"tenant": tenant})
