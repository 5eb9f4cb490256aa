"""Routes that query, write, export and erase readings."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.telemetry import aggregate, catalog, erasures, export, multi_series, readings, timeseries, write

ROUTES: Final[list[ControllerRouterHandler]] = [
    readings.router,
    timeseries.router,
    aggregate.router,
    multi_series.router,
    catalog.router,
    write.router,
    export.router,
    erasures.router,
]
