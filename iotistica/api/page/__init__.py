"""Serves the dashboard, as it was built from the folder `web`, and what only the dashboard needs."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.page import dashboard_layouts, overview

ROUTES: Final[list[ControllerRouterHandler]] = [
    overview.get_overview,
    overview.get_map,
    dashboard_layouts.router,
]
