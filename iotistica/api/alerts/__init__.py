"""Routes for events of agents, alert rules and incidents."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.alerts import alerts, escalations, events, incidents, previews, rules, silences, targets

ROUTES: Final[list[ControllerRouterHandler]] = [
    events.router,
    rules.router,
    previews.router,
    incidents.router,
    incidents.aliases,
    silences.router,
    targets.router,
    escalations.router,
    alerts.router,
    alerts.aliases,
]
