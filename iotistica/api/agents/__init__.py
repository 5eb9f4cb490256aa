"""Routes for agents and fleets, and the routes that agents themselves call."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.agents import (
    agent_search,
    agents,
    device_health,
    fleets,
    identities,
    key_exchange,
    logs,
    mqtt_users,
    poll,
    provisioning,
    provisioning_keys,
    reported_state,
    tags,
)

ROUTES: Final[list[ControllerRouterHandler]] = [
    provisioning.router,
    key_exchange.router,
    reported_state.report,
    logs.agent_facing,
    poll.poll,
    provisioning_keys.router,
    provisioning_keys.alias,
    identities.router,
    agents.router,
    agent_search.router,
    device_health.router,
    reported_state.router,
    logs.router,
    tags.router,
    fleets.router,
    mqtt_users.router,
]
