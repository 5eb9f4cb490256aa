"""Heals agents that poll but send no data: makes the broker drop their connection, so that they connect again.

The broker drops an agent's connection when this process connects with the agent's account. The public agent, once
two of its polls have failed, holds its messages back until it connects to the broker again.
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
AT_ONCE: Final = 10  # agents per round
HEALED: Final = "presence.healed"
"""Event kind: the agent's connection was dropped so that the agent connects again."""


async def run(database: Database, url: str, key: bytes, stop: asyncio.Event) -> None:
    """Heal agents every `EVERY` seconds until `stop`; the agents' broker passwords derive from `key`."""
    while not stop.is_set():
        try:
            await heal(database, url, key)
        except Unavailable as exc:
            logger.bind(reason=str(exc)).debug("silent agents could not be healed")
        await sleep(EVERY, stop)


async def heal(database: Database, url: str, key: bytes) -> None:
    """Drop the connections of up to `AT_ONCE` silent agents that are due; raises `Unavailable`."""
    async with database.transaction() as tx:
        silent = await presence.claim_silent(tx, most=AT_ONCE)
    for agent in silent:
        outcome = await _drop(url, key, agent)
        details = {"attempt": agent.heals, "outcome": outcome}
        event = TimelineEvent(agent=agent.agent_uuid, at=datetime.now(UTC), kind=HEALED, details=details)
        async with database.transaction() as tx:
            await timeline.add(tx, agent.tenant_id, [event])


async def _drop(url: str, key: bytes, agent: SilentAgent) -> str:
    """Take over the agent's session for a moment and return the outcome; messages queued for it stay queued."""
    account = (
        agent_user(agent.tenant_id, agent.agent_uuid),
        mqtt_password(key, agent.tenant_id, agent.agent_uuid, agent.generation),
    )
    try:
        async with connect(as_account(url, account), client_id=account[0], keep_session=True):
            return "its connection was dropped"
    except (CannotStart, Refused, Unavailable) as exc:
        return f"its connection was not dropped: {exc}"
