"""Routes for the audit log and the timelines of agents."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.history import audit, timeline

ROUTES: Final[list[ControllerRouterHandler]] = [
    audit.router,
    timeline.router,
]
