"""Counts of consecutive wrong passwords by login name; names that do not exist are counted the same way."""

from datetime import datetime, timedelta
from typing import Final

from iotistica.domain.access.passwords import FORGOTTEN
from iotistica.storage.postgres import Tx

FIND: Final = """
SELECT failures, extract(epoch FROM now() - last_at)::float8 FROM login_failures WHERE login = %(login)s
"""


async def count(tx: Tx, login: bytes) -> tuple[int, float]:
    """Return the number of consecutive failures, and the seconds since the last one."""
    row = await (await tx.execute(FIND, {"login": login})).fetchone()
    return (row[0], row[1]) if row and row[1] < FORGOTTEN else (0, FORGOTTEN)


ADD: Final = """
INSERT INTO login_failures AS f (login, failures) VALUES (%(login)s, 1)
ON CONFLICT (login) DO UPDATE SET last_at = now(),
    failures = CASE WHEN f.last_at < now() - %(forgotten)s::interval THEN 1 ELSE f.failures + 1 END
RETURNING failures
"""


async def add(tx: Tx, login: bytes) -> int:
    """Count one more failure; return the new number."""
    row = await (await tx.execute(ADD, {"login": login, "forgotten": timedelta(seconds=FORGOTTEN)})).fetchone()
    return int(row[0]) if row else 1


CLEAR: Final = "DELETE FROM login_failures WHERE login = %(login)s"


async def clear(tx: Tx, login: bytes) -> None:
    """Reset the count after a right password."""
    await tx.execute(CLEAR, {"login": login})


DELETE_OLD: Final = "DELETE FROM login_failures WHERE last_at < %(before)s"


async def delete_old(tx: Tx, *, before: datetime) -> None:
    """Delete the counts whose last failure was before `before`."""
    await tx.execute(DELETE_OLD, {"before": before})
