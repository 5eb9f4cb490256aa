"""The number of who holds a lease, in the database: one that lost it without knowing writes nothing any more."""

from typing import Final

from iotistica.errors import Superseded
from iotistica.storage.postgres import Tx

CLAIM: Final = """
INSERT INTO fences (name, number) VALUES (%(name)s, 1)
ON CONFLICT (name) DO UPDATE SET number = fences.number + 1 RETURNING number
"""


async def claim(tx: Tx, name: str) -> int:
    """The number of a new holder, once the transactions of the one before have ended."""
    row = await (await tx.execute(CLAIM, {"name": name})).fetchone()
    assert row is not None  # noqa: S101 it was written
    return int(row[0])


CHECK: Final = "SELECT number FROM fences WHERE name = %(name)s FOR SHARE"


async def check(tx: Tx, name: str, number: int) -> None:
    """Raise `Superseded` if there is another holder; none comes before the commit."""
    row = await (await tx.execute(CHECK, {"name": name})).fetchone()
    if row is None or row[0] != number:
        raise Superseded(f"another process took the lease {name}")
