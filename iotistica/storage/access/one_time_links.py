"""One-time links: invitations to become a user, and links to set a new password or to log in."""

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.domain.names import compared
from iotistica.storage.access.users import User
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

LOGIN_LIFETIME: Final = timedelta(days=1)

Purpose = Literal["invitation", "password", "login"]


class OneTimeLink(msgspec.Struct, frozen=True, kw_only=True):
    link_id: UUID
    tenant_id: TenantId
    purpose: Purpose
    email: str
    role: str | None
    user_id: UUID | None
    created_at: datetime
    expires_at: datetime


_COLUMNS: Final = "link_id, tenant_id, purpose, email, role, user_id, created_at, expires_at"

LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(lower(%(email)s) || %(tenant)s, 0))"


async def lock(tx: Tx, tenant: TenantId, email: str) -> None:
    """Block other transactions that create a link for this address until the commit."""
    await tx.execute(LOCK, {"tenant": tenant, "email": compared(email)})


# Only one link at a time: an older link for the same user, or invitation to the same address, is deleted.
REPLACE: Final = """
DELETE FROM links WHERE tenant_id = %(tenant)s AND purpose = %(purpose)s
  AND (user_id = %(user)s OR (user_id IS NULL AND lower(email) = lower(%(email)s)))
"""
ADD: Final = f"""
INSERT INTO links (tenant_id, digest, purpose, email, role, user_id, expires_at, created_by)
VALUES (%(tenant)s, %(digest)s, %(purpose)s, %(email)s, %(role)s, %(user)s, %(expires)s, %(by)s)
RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    purpose: Purpose,
    email: str,
    digest: bytes,
    *,
    role: str,
    expires: datetime,
    by: Actor,
    user: UUID | None = None,
) -> OneTimeLink:
    """Create a link, replacing an older one of the same purpose; `role` is the user's current or future role."""
    parameters: dict[str, object] = {
        "tenant": tenant,
        "purpose": purpose,
        "email": compared(email),
        "digest": digest,
        "role": role,
    }
    parameters |= {"role": role, "user": user, "by": by.id, "expires": expires}
    await tx.execute(REPLACE, parameters)
    row = await fetch_row(tx, OneTimeLink, ADD, parameters)
    assert row is not None  # noqa: S101 it was just inserted
    after = {"email": email, "role": role, "expires": expires}
    await audit.record(tx, tenant, by, f"link.{purpose}_made", ("link", row.link_id), after=after)
    return row


async def add_login(tx: Tx, user: User, digest: bytes, *, expires: datetime, by: Actor) -> OneTimeLink:
    """Create a link that logs a user in, replacing an earlier one."""
    return await add(
        *(tx, user.tenant_id, "login", user.email, digest),
        role=user.role,
        expires=expires,
        by=by,
        user=user.user_id,
    )


# A link of a user works only while the user has the role that it had when the link was created.
USE: Final = f"""
UPDATE links SET used_at = now()
WHERE digest = %(digest)s AND purpose = %(purpose)s AND used_at IS NULL AND expires_at > now()
  AND EXISTS (SELECT FROM tenants t WHERE t.tenant_id = links.tenant_id AND enabled)
  AND (user_id IS NULL OR EXISTS (SELECT FROM users u WHERE u.user_id = links.user_id AND u.active
                                  AND u.role = links.role))
RETURNING {_COLUMNS}
"""


async def use(tx: Tx, purpose: Purpose, digest: bytes) -> OneTimeLink | None:
    """Mark a link as used and return it; None if it is unknown, used, expired or has another purpose."""
    return await fetch_row(tx, OneTimeLink, USE, {"digest": digest, "purpose": purpose})


INVITATIONS: Final = f"""
SELECT {_COLUMNS} FROM links
WHERE tenant_id = %(tenant)s AND purpose = 'invitation' AND used_at IS NULL AND expires_at > now()
ORDER BY created_at DESC LIMIT 1000
"""


async def invitations(tx: Tx, tenant: TenantId) -> list[OneTimeLink]:
    """Return a tenant's unused and unexpired invitations, the newest first."""
    return await fetch_rows(tx, OneTimeLink, INVITATIONS, {"tenant": tenant})


INVITATION: Final = f"""
SELECT {_COLUMNS} FROM links
WHERE tenant_id = %(tenant)s AND purpose = 'invitation' AND used_at IS NULL AND expires_at > now()
  AND (link_id = %(link)s OR lower(email) = lower(%(email)s)) FOR UPDATE
"""


async def invitation(
    tx: Tx, tenant: TenantId, *, link: UUID | None = None, email: str | None = None
) -> OneTimeLink | None:
    """Return the open invitation with this id or for this address, locked until the commit, or None."""
    return await fetch_row(
        tx, OneTimeLink, INVITATION, {"tenant": tenant, "link": link, "email": email and compared(email)}
    )


WITHDRAW: Final = "DELETE FROM links WHERE tenant_id = %(tenant)s AND link_id = %(link)s"


async def withdraw(tx: Tx, tenant: TenantId, link: OneTimeLink, *, by: Actor) -> None:
    """Delete an invitation."""
    await tx.execute(WITHDRAW, {"tenant": tenant, "link": link.link_id})
    before = {"email": link.email, "role": link.role}
    await audit.record(tx, tenant, by, "link.invitation_withdrawn", ("link", link.link_id), before=before)


WITHDRAW_FOR_USER: Final = """
DELETE FROM links WHERE tenant_id = %(tenant)s AND used_at IS NULL
  AND (user_id = %(user)s OR (%(made)s AND created_by = %(user)s::text)) RETURNING link_id, purpose
"""


async def withdraw_for_user(tx: Tx, tenant: TenantId, user: UUID, *, made: bool, by: Actor) -> None:
    """Delete every open link for a user and, if `made`, every open link created by this user."""
    cursor = await tx.execute(WITHDRAW_FOR_USER, {"tenant": tenant, "user": user, "made": made})
    for link, purpose in await cursor.fetchall():
        await audit.record(tx, tenant, by, f"link.{purpose}_withdrawn", ("link", link), after={"user": user})


DELETE_EXPIRED: Final = "DELETE FROM links WHERE expires_at < %(before)s"


async def delete_expired(tx: Tx, *, before: datetime) -> None:
    """Delete links of every tenant that expired before `before`."""
    await tx.execute(DELETE_EXPIRED, {"before": before})
