"""Routes for the state of ingestion, dead letters, gaps, live updates, and why an agent is silent."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.delivery import dead_letters, ingestion, live, message_gaps, why

ROUTES: Final[list[ControllerRouterHandler]] = [
    ingestion.router,
    dead_letters.router,
    message_gaps.router,
    live.live,
    why.router,
]
