"""How long a refresh token can be repeated."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from iotistica.domain.ids import TenantId
from iotistica.storage.access import sessions, users
from iotistica.storage.access.sessions import REPEAT_SECONDS
from iotistica.storage.history.audit import PLATFORM, Actor
from iotistica.storage.postgres import Database

HERE = Actor(kind="anybody", address="192.0.2.1")


@pytest.mark.parametrize(
    ("seconds_ago", "by", "user_agent", "expected"),
    [
        (0, HERE, "Firefox", True),
        (REPEAT_SECONDS - 5, HERE, "Firefox", True),
        (REPEAT_SECONDS + 1, HERE, "Firefox", False),
        (0, Actor(kind="anybody", address="192.0.2.2"), "Firefox", True),
        (0, HERE, "curl", False),
        (0, HERE, None, False),
    ],
)
async def test_a_repeat_is_forgiven_to_the_same_client_for_a_while(
    database: Database, tenant: TenantId, seconds_ago: int, by: Actor, user_agent: str | None, expected: bool
) -> None:
    """Only for `REPEAT_SECONDS` and the same user agent; a laptop that wakes can have another address."""
    session = uuid4()
    async with database.transaction() as tx:
        user = await users.add(tx, tenant, f"{session}@example.com", "hash", "viewer", by=PLATFORM)
        expires = datetime.now(UTC) + timedelta(days=1)
        await sessions.open_session(
            tx, tenant, user.user_id, session, b"one", expires=expires, by=HERE, user_agent="Firefox"
        )
        assert await sessions.rotate(
            tx, session, old=b"one", new=b"two", address=HERE.address, user_agent="Firefox"
        )
        await tx.execute(
            "UPDATE sessions SET rotated_at = rotated_at - make_interval(secs => %(ago)s)"
            " WHERE session_id = %(session)s",
            {"ago": seconds_ago, "session": session},
        )
        found = await sessions.repeated(tx, session, used=b"one", by=by, user_agent=user_agent)
    assert (found is not None) == expected
