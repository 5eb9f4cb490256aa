"""Adds to new members of incidents the values around the moment, and to readings the scores that opened them."""

from collections.abc import Sequence
from typing import Final

from iotistica.alerting.transitions import Transition
from iotistica.storage.alerts import watched_readings
from iotistica.storage.postgres import Tx

VALUES: Final = 50  # values before the moment that a rule fired
MEMBERS: Final = 20  # members of one round that get such values


async def add(tx: Tx, transitions: Sequence[Transition]) -> None:
    """Add the values before the moment to the first `MEMBERS` new members, and scores to the readings of all."""
    left = MEMBERS
    for transition in transitions:
        member = transition.member
        if member is None or member.value is None or member.subject.agent is None:
            continue
        place = transition.tenant, member.subject.agent, member.subject.metric_name, member.details["at"]
        if left:
            left -= 1
            member.details["values"] = await watched_readings.values_before(tx, *place, limit=VALUES)
        if "score" in member.details:
            score, threshold = member.details["score"], member.details["threshold"]
            await watched_readings.set_score(tx, *place, score=score, threshold=threshold)
