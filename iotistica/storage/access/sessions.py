"""Sessions of operators: one per login, with a refresh token that changes at each use."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.ids import TenantId
from iotistica.storage.history import audit
from iotistica.storage.history.audit import Actor
from iotistica.storage.postgres import Tx, fetch_row, fetch_rows

REPEAT_SECONDS: Final = 30
"""For this long the same client can use a refresh token again."""
USER_LIMIT: Final = 20  # live sessions of a user; the least recently used one ends


class Session(msgspec.Struct, frozen=True, kw_only=True):
    session_id: UUID
    tenant_id: TenantId
    user_id: UUID
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None


class SessionMember(msgspec.Struct, frozen=True, kw_only=True):
    """A live session with the current e-mail address and role of its user."""

    session_id: UUID
    tenant_id: TenantId
    user_id: UUID
    email: str
    role: str


_COLUMNS: Final = "session_id, tenant_id, user_id, created_at, used_at, expires_at, address, user_agent"

OPEN: Final = """
INSERT INTO sessions (session_id, tenant_id, user_id, token_digest, expires_at, address, user_agent)
VALUES (%(session)s, %(tenant)s, %(user)s, %(digest)s, %(expires)s, %(address)s, %(user_agent)s)
"""
TRIM: Final = """
DELETE FROM sessions WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND session_id NOT IN (
    SELECT session_id FROM sessions WHERE tenant_id = %(tenant)s AND user_id = %(user)s
    ORDER BY ended_at IS NULL DESC, used_at DESC LIMIT %(most)s)
"""


async def open_session(
    tx: Tx,
    tenant: TenantId,
    user: UUID,
    session: UUID,
    digest: bytes,
    *,
    expires: datetime,
    by: Actor,
    user_agent: str | None,
) -> None:
    """Open a session; only the `USER_LIMIT` most recently used sessions of a user are kept."""
    parameters = {"tenant": tenant, "user": user, "session": session, "digest": digest, "expires": expires}
    await tx.execute(OPEN, parameters | {"address": by.address, "user_agent": user_agent})
    await tx.execute(TRIM, {"tenant": tenant, "user": user, "most": USER_LIMIT})
    await audit.record(tx, tenant, by, "session.opened", ("session", session), after={"user": str(user)})


ROTATE: Final = """
UPDATE sessions s SET token_digest = %(new)s, previous_digest = %(old)s, used_at = now(), rotated_at = now(),
                      address = %(address)s, user_agent = %(user_agent)s
FROM users u JOIN tenants t USING (tenant_id)
WHERE s.session_id = %(session)s AND s.token_digest = %(old)s AND s.ended_at IS NULL AND s.expires_at > now()
  AND u.user_id = s.user_id AND u.active AND t.enabled
RETURNING s.session_id, s.tenant_id, s.user_id, u.email, u.role
"""


async def rotate(
    tx: Tx, session: UUID, *, old: bytes, new: bytes, address: str | None, user_agent: str | None
) -> SessionMember | None:
    """Replace the refresh token of a live session; return None if `old` is not its token or it has ended."""
    parameters = {"session": session, "old": old, "new": new, "address": address, "user_agent": user_agent}
    return await fetch_row(tx, SessionMember, ROTATE, parameters)


REPEATED: Final = """
SELECT s.session_id, s.tenant_id, s.user_id, u.email, u.role
FROM sessions s JOIN users u USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
WHERE s.session_id = %(session)s AND s.previous_digest = %(used)s
  AND s.rotated_at > now() - make_interval(secs => %(seconds)s)
  AND s.user_agent IS NOT DISTINCT FROM %(user_agent)s
  AND s.ended_at IS NULL AND s.expires_at > now() AND u.active AND t.enabled
"""


async def repeated(
    tx: Tx, session: UUID, *, used: bytes, by: Actor, user_agent: str | None
) -> SessionMember | None:
    """Return the live session whose last token was used before, less than `REPEAT_SECONDS` ago, by the same client.

    Two tabs of a browser refresh at once, and an answer can be lost; neither is a theft. The address does not
    count: a laptop that wakes changes its network, and a host name can stand for an IPv4 and an IPv6 address.
    """
    parameters = {"session": session, "used": used, "user_agent": user_agent}
    member = await fetch_row(tx, SessionMember, REPEATED, parameters | {"seconds": REPEAT_SECONDS})
    if member is not None:
        facts = {"user": str(member.user_id)}
        await audit.record(tx, member.tenant_id, by, "session.refresh_repeated", ("session", session), after=facts)
    return member


END_REUSED: Final = """
UPDATE sessions SET ended_at = now()
WHERE session_id = %(session)s AND ended_at IS NULL AND expires_at > now()
  AND EXISTS (SELECT FROM users u WHERE u.user_id = sessions.user_id AND active)
RETURNING session_id, tenant_id, user_id, created_at, used_at, expires_at, address, user_agent
"""


async def end_reused(tx: Tx, session: UUID, *, by: Actor) -> None:
    """End a session whose refresh token was used twice, because one of the two clients has stolen it."""
    ended = await fetch_row(tx, Session, END_REUSED, {"session": session})
    if ended is not None:
        await audit.record(
            tx,
            ended.tenant_id,
            by,
            "session.reuse_detected",
            ("session", session),
            after={"user": str(ended.user_id)},
        )


LIVE: Final = """
SELECT s.session_id, s.tenant_id, s.user_id, u.email, u.role
FROM sessions s JOIN users u USING (tenant_id, user_id) JOIN tenants t USING (tenant_id)
WHERE s.session_id = %(session)s AND s.ended_at IS NULL AND s.expires_at > now() AND u.active AND t.enabled
"""


async def live(tx: Tx, session: UUID) -> SessionMember | None:
    """Return the live session with this id if its user is active and its tenant is enabled, or None."""
    return await fetch_row(tx, SessionMember, LIVE, {"session": session})


PAGE: Final = f"""
SELECT {_COLUMNS} FROM sessions
WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND ended_at IS NULL AND expires_at > now()
ORDER BY used_at DESC, session_id
"""


async def of_user(tx: Tx, tenant: TenantId, user: UUID) -> list[Session]:
    """Return a user's live sessions, the most recently used first."""
    return await fetch_rows(tx, Session, PAGE, {"tenant": tenant, "user": user})


END: Final = """
UPDATE sessions SET ended_at = now()
WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND ended_at IS NULL
  AND (%(only)s::uuid IS NULL OR session_id = %(only)s) AND (%(exclude)s::uuid IS NULL OR session_id <> %(exclude)s)
RETURNING session_id
"""


async def end(
    tx: Tx, tenant: TenantId, user: UUID, *, by: Actor, only: UUID | None = None, exclude: UUID | None = None
) -> int:
    """End `only` one session of a user, or all, or all except `exclude`; return how many ended."""
    cursor = await tx.execute(END, {"tenant": tenant, "user": user, "only": only, "exclude": exclude})
    ended = [row[0] for row in await cursor.fetchall()]
    for session in ended:
        await audit.record(tx, tenant, by, "session.ended", ("session", session), after={"user": str(user)})
    return len(ended)


DELETE_ENDED: Final = "DELETE FROM sessions WHERE coalesce(ended_at, expires_at) < %(before)s"


async def delete_ended(tx: Tx, *, before: datetime) -> None:
    """Delete sessions of every tenant that ended or expired before `before`."""
    await tx.execute(DELETE_ENDED, {"before": before})
