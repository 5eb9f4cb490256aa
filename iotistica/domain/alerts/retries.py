"""When a message that could not be delivered is tried again."""

from datetime import datetime, timedelta
from typing import Final

FIRST: Final = 5.0  # seconds until the second attempt
FACTOR: Final = 2.0
LONGEST: Final = 3600.0  # seconds between attempts, also if the receiver asks for more


def next_attempt(
    attempts: int, now: datetime, expires_at: datetime, *, retry_after: float | None, jitter: float
) -> datetime | None:
    """Return when to try again after `attempts` failures; None if it is given up.

    The waits double from `FIRST` to `LONGEST` seconds and vary by a quarter (`jitter` is 0 to 1), so that a
    receiver that comes back is not met by all at once. One that asks for a longer wait gets it, up to `LONGEST`.
    The last attempt is at the end of the time that is given.
    """
    if now >= expires_at:
        return None
    wait = min(FIRST * FACTOR ** min(attempts - 1, 30), LONGEST) * (0.75 + 0.5 * jitter)
    if retry_after is not None:
        wait = max(wait, min(retry_after, LONGEST))
    return min(now + timedelta(seconds=wait), expires_at)
