"""Links that work once: an invitation to become a user, or leave to set another password."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage import audit
from iotistica.storage.audit import Actor
from iotistica.storage.postgres import Tx, row_as, rows_as

Purpose = Literal["invitation", "password"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    link_id: UUID
    tenant_id: TenantId
    purpose: Purpose
    email: str
    role: str | None
    user_id: UUID | None
    created_at: datetime
    expires_at: datetime


_COLUMNS: Final = "link_id, tenant_id, purpose, email, role, user_id, created_at, expires_at"

# One at a time: an older link for the same thing stops working.
REPLACE: Final = """
DELETE FROM links WHERE tenant_id = %(tenant)s AND purpose = %(purpose)s AND lower(email) = lower(%(email)s)
"""
ADD: Final = f"""
INSERT INTO links (tenant_id, digest, purpose, email, role, user_id, expires_at)
VALUES (%(tenant)s, %(digest)s, %(purpose)s, %(email)s, %(role)s, %(user)s, %(expires)s)
RETURNING {_COLUMNS}
"""


async def add(
    tx: Tx,
    tenant: TenantId,
    purpose: Purpose,
    email: str,
    digest: bytes,
    *,
    expires: datetime,
    by: Actor,
    role: str | None = None,
    user: UUID | None = None,
) -> Link:
    """Make a link, in place of an older one for the same."""
    parameters = {"tenant": tenant, "purpose": purpose, "email": email, "digest": digest, "role": role}
    await tx.execute(REPLACE, parameters)
    row = await row_as(tx, Link, ADD, parameters | {"user": user, "expires": expires})
    assert row is not None  # noqa: S101 it was inserted
    after = {"email": email, "role": role, "expires": expires}
    await audit.record(tx, tenant, by, f"link.{purpose}_made", ("link", row.link_id), after=after)
    return row


USE: Final = f"""
UPDATE links SET used_at = now()
WHERE digest = %(digest)s AND purpose = %(purpose)s AND used_at IS NULL AND expires_at > now()
  AND EXISTS (SELECT FROM tenants t WHERE t.tenant_id = links.tenant_id AND enabled)
RETURNING {_COLUMNS}
"""


async def use(tx: Tx, purpose: Purpose, digest: bytes) -> Link | None:
    """Take a link, once; None if it is unknown, used, expired or for something else."""
    return await row_as(tx, Link, USE, {"digest": digest, "purpose": purpose})


OPEN: Final = f"""
SELECT {_COLUMNS} FROM links
WHERE tenant_id = %(tenant)s AND purpose = 'invitation' AND used_at IS NULL AND expires_at > now()
ORDER BY created_at DESC LIMIT 1000
"""


async def invitations(tx: Tx, tenant: TenantId) -> list[Link]:
    """Invitations that nobody has followed yet, the newest first."""
    return await rows_as(tx, Link, OPEN, {"tenant": tenant})


WITHDRAW: Final = f"""
DELETE FROM links WHERE tenant_id = %(tenant)s AND link_id = %(link)s AND used_at IS NULL RETURNING {_COLUMNS}
"""


async def withdraw(tx: Tx, tenant: TenantId, link: UUID, *, by: Actor) -> bool:
    """Take a link back; False if there is none."""
    row = await row_as(tx, Link, WITHDRAW, {"tenant": tenant, "link": link})
    if row is None:
        return False
    await audit.record(
        tx,
        tenant,
        by,
        f"link.{row.purpose}_withdrawn",
        ("link", link),
        before={"email": row.email, "role": row.role},
    )
    return True


FORGET: Final = "DELETE FROM links WHERE expires_at < %(before)s"


async def forget(tx: Tx, *, before: datetime) -> None:
    """Remove links of every tenant that ended before then."""
    await tx.execute(FORGET, {"before": before})
