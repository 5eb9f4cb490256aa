"""Heals agents that poll and send nothing: a connection under their account makes the broker drop theirs.

The public agent that has failed two polls keeps what it has to say to itself until it connects anew.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from iotistica.domain.agents.broker_passwords import mqtt_password
from iotistica.domain.ids import agent_user
from iotistica.errors import CannotStart, Refused, Unavailable
from iotistica.mqtt.access_probe import as_account
from iotistica.mqtt.client import connect
from iotistica.storage.agents import presence
from iotistica.storage.agents.presence import SilentAgent
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import TimelineEvent
from iotistica.storage.postgres import Database
from iotistica.supervise import sleep

EVERY: Final = 5.0  # seconds
AT_ONCE: Final = 10  # agents
HEALED: Final = "presence.healed"
"""The kind of a happening: the agent's connection was dropped so that it makes another."""


async def run(database: Database, url: str, key: bytes, stop: asyncio.Event) -> None:
    """Look every `EVERY` seconds; passwords of agents derive from `key`."""
    while not stop.is_set():
        try:
            await heal(database, url, key)
        except Unavailable as exc:
            logger.bind(reason=str(exc)).debug("nobody is healed")
        await sleep(EVERY, stop)


async def heal(database: Database, url: str, key: bytes) -> None:
    """Drop the connections of some that are due; raises `Unavailable`."""
    async with database.transaction() as tx:
        silent = await presence.claim_silent(tx, most=AT_ONCE)
    for agent in silent:
        outcome = await _drop(url, key, agent)
        details = {"attempt": agent.heals, "outcome": outcome}
        happened = TimelineEvent(agent=agent.agent_uuid, at=datetime.now(UTC), kind=HEALED, details=details)
        async with database.transaction() as tx:
            await timeline.add(tx, agent.tenant_id, [happened])


async def _drop(url: str, key: bytes, agent: SilentAgent) -> str:
    """Take the agent's session over for a moment; its messages that wait in the broker stay there."""
    account = (
        agent_user(agent.tenant_id, agent.agent_uuid),
        mqtt_password(key, agent.tenant_id, agent.agent_uuid, agent.generation),
    )
    try:
        async with connect(as_account(url, account), client_id=account[0], keep_session=True):
            return "its connection was dropped"
    except (CannotStart, Refused, Unavailable) as exc:
        return f"the broker did not let us: {exc}"
